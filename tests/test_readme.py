"""What README.md says is so: its recipes are valid, its code runs, its lists equal the disk."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mtl.cli import cli
from mtl.experiment.trial import build_and_try
from mtl.recipe.load import built_in_names, load_recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_recipes_are_valid(text: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text, encoding="utf-8")
    build_and_try(load_recipe(path))


def test_there_are_recipes_and_code() -> None:
    assert (len(blocks("yaml")), len(blocks("python"))) == (2, 2)


def test_the_plugin_registers_its_task(
    tmp_path: Path, run_mtl: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (tmp_path / "footwear.py").write_text(blocks("python")[0], encoding="utf-8")
    done = run_mtl(
        "validate", "fashion_stitch", "tasks.shoe={kind: fashion.footwear}", "--plugin", "footwear.py"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 tasks, 3 towers" in done.stdout


def test_the_python_api(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code = blocks("python")[1].replace("train.epochs=3", "train.epochs=1")
    exec(compile(code, "README.md", "exec"), {})
    assert 0.3 < float(capsys.readouterr().out) < 1
    assert (tmp_path / "short_run" / "run.json").is_file()


def test_commands_are_those_of_the_program() -> None:
    table = README.split("## Commands")[1].split("## Built-in")[0]
    named = set(re.findall(r"`mtl ([a-z]+)", table))
    assert named == set(cli.commands)


def test_recipes_are_those_on_disk() -> None:
    table = README.split("## Built-in recipes")[1].split("## How")[0]
    named = {
        name.strip()
        for line in re.findall(r"^\| ([a-z_, ]+) \|", table, flags=re.M)
        for name in line.split(",")
    }
    assert named - {"recipe"} == set(built_in_names())


def test_the_tree_is_on_disk() -> None:
    tree = README.split("## How it is made")[1]
    folders = re.findall(r"^    ([a-z]+)/ ", tree, flags=re.M)
    assert len(folders) >= 4
    assert all((ROOT / folder).is_dir() for folder in folders)


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M))
    named = set(re.findall(r"^    make ([a-z]+)", README, flags=re.M))
    assert named == {"run", "test"}
    assert named <= targets

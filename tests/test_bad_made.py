"""Each script of tests/bad/made/ makes inputs that are refused with the line beside it; a new case is a new pair.

For what is no text: arrays, images, IDX files, Parquet, pipes and links, and inputs of several files or of great
size. A script runs in the folder of the case; it may write `r.yaml`, else the recipe is one for what it made. The
`.txt` may begin with `args: ` and overrides, or a command with all its arguments.
"""

from __future__ import annotations

import contextlib
import importlib
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.support.assertions import Capture, called, contents, plugins_undone, refused
from tests.support.recipes import write

BAD = Path(__file__).parent / "bad" / "made"
CASES = sorted(BAD.glob("*.py"))
COMMANDS = ("run", "init", "validate", "predict", "eval")
INPUTS = {"numeric": ["x", "z"], "categorical": ["c"]}
DATA: dict[str, tuple[dict[str, Any], str]] = {
    # what the script made: the recipe's source, the task's target
    "train.csv": ({"kind": "table", "path": "train.csv", "inputs": INPUTS}, "label"),
    "train.parquet": ({"kind": "table", "path": "train.parquet", "inputs": INPUTS}, "label"),
    "data.npz": ({"kind": "npz", "path": "data.npz"}, "label"),
    "fashion": ({"kind": "fashion_mnist", "path": "fashion"}, "label"),
    "faces.npz": ({"kind": "face_embeddings", "path": "faces.npz"}, "gender"),
}


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    """What an import takes is no part of a case."""
    for name in ("mtl.experiment.run", "pyarrow.parquet", "PIL.Image"):
        importlib.import_module(name)


def case_of(path: Path) -> tuple[list[str], list[str]]:
    """The command, and what each line of its answer contains."""
    lines = path.with_suffix(".txt").read_text(encoding="utf-8").splitlines()
    given = shlex.split(lines.pop(0).removeprefix("args: ")) if lines[0].startswith("args: ") else []
    return (given if given[:1] and given[0] in COMMANDS else ["run", "r.yaml", *given]), lines


def make(path: Path, folder: Path) -> None:
    """Run the script, and write a recipe for what it made."""
    with contextlib.chdir(folder):
        runpy.run_path(str(path))
    if not (folder / "r.yaml").exists():
        made = next((name for name in DATA if (folder / name).exists()), "data.npz")
        source, target = DATA[made]
        data = {"source": source} if made == "fashion" else {"source": source, "split": {"test": 0.25}}
        task = {"it": {"kind": "multiclass", "target": target}}
        write(folder, data=data, tasks=task, train__batch_size=4)


def test_the_cases_are_found_in_pairs() -> None:
    assert len(CASES) >= 110
    assert [path.with_suffix(".txt") for path in CASES] == sorted(BAD.glob("*.txt"))
    assert all(case_of(path)[1] for path in CASES)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_bad_input(path: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(path, tmp_path)
    command, expected = case_of(path)
    if any(found.is_fifo() for found in tmp_path.iterdir()):  # `refused` would wait for its bytes
        done = called(capsys, *command)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
        assert all(part in done.stderr for part in expected[0].split(" ... "))
    else:
        with plugins_undone():
            refused(lambda: called(capsys, *command), tmp_path, expected)


def test_a_sound_input_is_not_refused(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else every case here could be refused for its recipe."""
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "sound.py"
    script.write_text(
        "import numpy as np\n\n"
        "rows = np.arange(480.0).reshape(160, 3)  # none repeats another\n"
        "np.savez('data.npz', inputs=rows, label=np.arange(160) % 2)\n"
    )
    make(script, tmp_path)
    before = contents(tmp_path)
    done = called(capsys, "run", "r.yaml", "--quiet", "--out", "run")
    assert (done.returncode, done.stderr) == (0, "")
    assert before.items() <= contents(tmp_path).items()

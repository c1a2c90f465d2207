"""Base, task_defaults, overrides and paths: how a recipe comes together, and is the same one again."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtl.commands.options import is_override
from mtl.errors import ManyErrors, UserError
from mtl.recipe.load import BUILT_IN, MAX_BASES, built_in_names, find, load_recipe, to_yaml
from tests.support.recipes import as_yaml, changed, small

ROOT = Path(__file__).parents[2]
VALID_AS_A_MAPPING = small(
    name="valid",
    optimizer={"kind": "sgd", "lr": 0.1, "momentum": 0.9},
    train={"epochs": 1, "batch_size": 8},
)
VALID = as_yaml(VALID_AS_A_MAPPING)
FASHION = as_yaml(changed(VALID_AS_A_MAPPING, data={"source": {"kind": "fashion_mnist", "path": "data"}}))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "valid.yaml").write_text(VALID, encoding="utf-8")
    return tmp_path


def on(base: str, text: str, name: str = "r.yaml") -> str:
    """Writes a recipe on top of another; its name."""
    Path(name).write_text(f"schema_version: 1\nname: top\nbase: {base}\n{text}", encoding="utf-8")
    return name


def refusal(source: Any, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_recipe(source, overrides)
    return str(caught.value)


def plain(source: Any, *overrides: str) -> dict[str, Any]:
    return load_recipe(source, overrides).plain()


def mapping() -> dict[str, Any]:
    return changed(VALID_AS_A_MAPPING)


# --- base ---


def test_mappings_merge_by_key() -> None:
    merged = plain(
        on(
            "valid.yaml",
            "train: {batch_size: 4}\ntasks: {b: {weight: 2.0}, c: {kind: multiclass, target: task1}}\n",
        )
    )
    assert (merged["train"]["epochs"], merged["train"]["batch_size"]) == (1, 4)
    assert list(merged["tasks"]) == ["a", "b", "c"]
    assert (merged["tasks"]["b"]["target"], merged["tasks"]["b"]["weight"]) == ("task1", 2.0)
    assert merged["name"] == "top"
    assert "base" not in merged


def test_lists_are_replaced_whole() -> None:
    text = "model: {backbone: {stages: [{name: one, kind: linear, features: 2}]}}\n"
    stages = plain(on("valid.yaml", text))["model"]["backbone"]["stages"]
    assert [stage["name"] for stage in stages] == ["one"]


def test_a_mapping_whose_kind_changes_is_replaced_whole() -> None:
    optimizer = plain(on("valid.yaml", "optimizer: {kind: adam, lr: 0.01}\n"))["optimizer"]
    assert optimizer["lr"] == 0.01
    assert "momentum" not in optimizer
    assert "r.yaml:4:12: optimizer.lr: missing key 'lr'" in refusal(
        on("valid.yaml", "optimizer: {kind: adam}\n")
    )


def test_a_mapping_of_the_same_kind_merges() -> None:
    for text in ("{kind: sgd, lr: 0.2}", "{lr: 0.2}"):
        optimizer = plain(on("valid.yaml", f"optimizer: {text}\n"))["optimizer"]
        assert (optimizer["lr"], optimizer["momentum"]) == (0.2, 0.9)


def test_null_and_scalars_replace() -> None:
    on("valid.yaml", "seed: {init: 3}\n", "below.yaml")
    assert load_recipe(on("below.yaml", "seed: 4\n")).seeds.init == 4
    on("valid.yaml", "train: {early_stopping: {patience: 2}}\n", "below.yaml")
    assert load_recipe(on("below.yaml", "train: {early_stopping: null}\n")).train.early_stopping is None


def test_a_chain_of_bases() -> None:
    on("valid.yaml", "train: {epochs: 2, batch_size: 2}\n", "one.yaml")
    on("one.yaml", "train: {batch_size: 3}\n", "two.yaml")
    merged = plain(on("two.yaml", "seed: 5\n"))
    assert (merged["train"]["epochs"], merged["train"]["batch_size"], merged["seed"]) == (2, 3, 5)


def test_a_long_chain_ends() -> None:
    names = ["valid.yaml"]
    for i in range(MAX_BASES + 1):
        names.append(on(names[-1], "seed: 1\n", f"r{i}.yaml"))
    assert load_recipe(names[MAX_BASES]).name == "top"
    assert refusal(names[MAX_BASES + 1]) == "r0.yaml:3:7: base: more than 8 recipes on top of each other"


def test_cyclic_bases_are_named() -> None:
    for name, base in (("a", "b"), ("b", "c"), ("c", "a")):
        on(f"{base}.yaml", "seed: 1\n", f"{name}.yaml")
    on("a.yaml", "seed: 1\n", "top.yaml")
    where = {"a": "c", "b": "a", "c": "b", "top": "c"}
    circles = {
        "a": "'a.yaml' -> 'b.yaml' -> 'c.yaml' -> 'a.yaml'",
        "b": "'b.yaml' -> 'c.yaml' -> 'a.yaml' -> 'b.yaml'",
        "c": "'c.yaml' -> 'a.yaml' -> 'b.yaml' -> 'c.yaml'",
        "top": "'a.yaml' -> 'b.yaml' -> 'c.yaml' -> 'a.yaml'",  # which is not in the circle itself
    }
    for name, circle in circles.items():
        place = f"{where[name]}.yaml:3:7: base"
        todo = "take one of these `base` keys out"
        assert refusal(f"{name}.yaml") == f"{place}: the bases are cyclic: {circle}; {todo}"


def test_a_built_in_base() -> None:
    assert plain(on("synthetic_stitch", "train: {epochs: 2}\n"))["train"]["epochs"] == 2


def test_a_fault_points_to_the_file_that_wrote_it() -> None:
    Path("valid.yaml").write_text(VALID.replace("lr: 0.1", "lr: fast"), encoding="utf-8")
    text = on("valid.yaml", "train: {batch_size: 0}\ntasks: {c: {kind: multiclas, target: task0}}\n")
    with pytest.raises(ManyErrors) as caught:
        load_recipe(text, ["seed=-1"])
    assert [str(error).split(": Input")[0] for error in caught.value.errors] == [
        "command line: seed",
        "r.yaml:4:21: train.batch_size",
        "r.yaml:5:19: tasks.c.kind: unknown task 'multiclas'; known: binary, faces.gender, faces.young, "
        "fashion.audience, fashion.garment, multiclass, multilabel, ordinal, regression "
        "(did you mean 'multiclass'?)",
        "valid.yaml:9:28: optimizer.lr",
    ]


def test_what_replaced_a_mapping_has_its_own_places() -> None:
    faults = refusal(on("valid.yaml", "optimizer: {kind: adam, lr: 0.1, momentum: 0.9}\n"))
    assert (
        faults
        == "r.yaml:4:34: optimizer.momentum: unknown key 'momentum' for adam; known: kind, lr, l2, betas, eps"
    )


def test_a_text_fault_of_the_base_is_its_own() -> None:
    Path("valid.yaml").write_text("a: [\n", encoding="utf-8")
    assert refusal(on("valid.yaml", "")).startswith("valid.yaml:2:1: ")


def test_a_base_lies_in_the_recipes_folder(folder: Path) -> None:
    (folder / "sub").mkdir()
    on("../valid.yaml", "", "sub/r.yaml")
    assert "is outside the recipe's folder" in refusal("sub/r.yaml")
    (folder / "sub" / "link.yaml").symlink_to(folder / "valid.yaml")
    on("link.yaml", "", "sub/r.yaml")
    assert "is outside the recipe's folder" in refusal("sub/r.yaml")
    (folder / "sub" / "loop.yaml").symlink_to("loop.yaml")
    on("loop.yaml", "", "sub/r.yaml")
    assert refusal("sub/r.yaml") == "sub/r.yaml:3:7: base: no such recipe 'loop.yaml'"
    on("deep/valid.yaml", "", "sub/r.yaml")
    (folder / "sub" / "deep").mkdir()
    (folder / "sub" / "deep" / "valid.yaml").write_text(VALID, encoding="utf-8")
    assert load_recipe("sub/r.yaml").name == "top"


# --- task_defaults ---


def test_task_defaults_go_under_every_task() -> None:
    text = VALID.replace("kind: multiclass, ", "").replace(
        "tasks:\n", "task_defaults: {kind: multiclass, weight: 3.0, missing: mask}\ntasks:\n"
    )
    Path("r.yaml").write_text(text.replace("target: task1", "target: task1, weight: 1.0"), encoding="utf-8")
    merged = plain("r.yaml")
    assert "task_defaults" not in merged
    assert [(task["kind"], task["weight"]) for task in merged["tasks"].values()] == [
        ("multiclass", 3.0),
        ("multiclass", 1.0),
    ]
    assert all(task["missing"] == "mask" for task in merged["tasks"].values())


def test_task_defaults_of_another_kind_are_left_out() -> None:
    text = VALID.replace("tasks:\n", "task_defaults: {kind: fashion.garment, weight: 3.0}\ntasks:\n")
    Path("r.yaml").write_text(text, encoding="utf-8")
    assert plain("r.yaml")["tasks"]["a"]["weight"] == 1.0


def test_task_defaults_of_the_base_reach_new_tasks() -> None:
    text = VALID.replace("tasks:\n", "task_defaults: {kind: multiclass, weight: 3.0}\ntasks:\n")
    Path("valid.yaml").write_text(text, encoding="utf-8")
    tasks = plain(on("valid.yaml", "tasks: {c: {target: task0}}\n"))["tasks"]
    assert (tasks["c"]["kind"], tasks["c"]["weight"]) == ("multiclass", 3.0)


def test_a_fault_in_task_defaults_is_said_once_at_its_place() -> None:
    text = VALID.replace("tasks:\n", "task_defaults: {weight: -1}\ntasks:\n")
    Path("r.yaml").write_text(text, encoding="utf-8")
    assert refusal("r.yaml").startswith("r.yaml:4:25: tasks.a.weight: ")
    assert "\n" not in refusal("r.yaml")


# --- overrides ---


def test_overrides_beat_the_recipe_and_its_base() -> None:
    name = on("valid.yaml", "train: {epochs: 2}\n")
    merged = plain(name, "train.epochs=3", "optimizer.lr=0.5", "tasks.a.weight=2.0", "~tasks.b")
    assert (merged["train"]["epochs"], merged["optimizer"]["lr"]) == (3, 0.5)
    assert merged["tasks"]["a"]["weight"] == 2.0
    assert list(merged["tasks"]) == ["a"]


def test_an_override_of_task_defaults_reaches_the_tasks() -> None:
    tasks = plain("valid.yaml", "task_defaults.weight=2.0")["tasks"]
    assert [task["weight"] for task in tasks.values()] == [2.0, 2.0]


# --- paths ---


def path_of(source: Any, *overrides: str) -> str:
    return plain(source, *overrides)["data"]["source"]["path"]


def test_a_path_is_relative_to_the_recipe_that_wrote_it(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "r.yaml").write_text(FASHION, encoding="utf-8")
    assert path_of("sub/r.yaml") == path_of(folder / "sub" / "r.yaml") == str(folder / "sub" / "data")
    on("sub/r.yaml", "train: {epochs: 2}\n", "top.yaml")
    assert path_of("top.yaml") == str(folder / "sub" / "data")
    on("sub/r.yaml", "data: {source: {path: mine}}\n", "top.yaml")
    assert path_of("top.yaml") == str(folder / "mine")


def test_a_path_on_the_command_line_is_relative_to_the_working_directory(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "r.yaml").write_text(FASHION, encoding="utf-8")
    assert path_of("sub/r.yaml", "data.source.path=mine") == str(folder / "mine")
    assert path_of("sub/r.yaml", "data.source={kind: fashion_mnist, path: mine}") == str(folder / "mine")
    assert path_of("sub/r.yaml", "data.source.path=/mine") == "/mine"


def test_a_path_in_a_mapping_is_relative_to_the_working_directory(folder: Path) -> None:
    source = {**mapping(), "data": {"source": {"kind": "fashion_mnist", "path": "data"}}}
    assert path_of(source) == str(folder / "data")


# --- what is given ---


def test_a_mapping_with_lists_is_the_same_recipe() -> None:
    assert load_recipe(mapping()).sha256() == load_recipe("valid.yaml").sha256()
    assert load_recipe(mapping()).text == b""
    assert load_recipe("valid.yaml").text == VALID.encode()


def test_a_mapping_is_left_as_it_was() -> None:
    source = mapping()
    load_recipe(source, ["train.epochs=4", "~tasks.b"])
    assert source == mapping()


@pytest.mark.parametrize(
    ("part", "line"),
    [
        ({3: "x"}, "recipe: a key is text, got 3"),
        ({"weighting": {None: 2}}, "recipe: weighting: a key is text, got None"),
        ({"trackers": [{True: 1}]}, "recipe: trackers[0]: a key is text, got True"),
    ],
)
def test_keys_of_a_mapping_are_text(part: dict[Any, Any], line: str) -> None:
    assert refusal({**mapping(), **part}) == line


def test_a_fault_in_a_mapping_has_its_path() -> None:
    source = mapping()
    source["optimizer"]["lr"] = "fast"
    source["sed"] = 1
    assert sorted(refusal(source).splitlines()) == [
        "recipe: optimizer.lr: Input should be a valid number, got str 'fast'",
        "recipe: sed: unknown key 'sed' (did you mean 'seed'?)",
    ]
    assert "NaN" in refusal(
        {**mapping(), "optimizer": {"kind": "sgd", "lr": float("nan")}}
    ) or "finite" in refusal({**mapping(), "optimizer": {"kind": "sgd", "lr": float("nan")}})


def test_find(folder: Path) -> None:
    assert "fashion_stitch" in built_in_names()
    assert find("fashion_stitch") == BUILT_IN / "fashion_stitch.yaml"
    assert find("valid.yaml") == Path("valid.yaml")
    assert find("some/where") == Path("some/where")
    (folder / "fashion_stitch").mkdir()  # as `--out fashion_stitch` makes one
    assert find("fashion_stitch") == BUILT_IN / "fashion_stitch.yaml"
    (folder / "plain").write_text(VALID, encoding="utf-8")
    assert load_recipe("plain").name == "valid"
    assert refusal(".") == ".: is a directory; name the recipe file in it"
    for name in ("fashion_stich", "a" * 300, ""):
        assert "no such file, and no built-in recipe has that name" in refusal(name)
    assert "(did you mean 'fashion_stitch'?)" in refusal("fashion_stich")


# --- the same recipe again ---


@pytest.mark.parametrize("name", built_in_names())
def test_written_out_it_is_the_same_recipe(name: str) -> None:
    recipe = load_recipe(name)
    Path("again.yaml").write_text(to_yaml(recipe), encoding="utf-8")
    again = load_recipe("again.yaml")
    assert again.plain() == recipe.plain()
    assert again.sha256() == recipe.sha256()
    assert to_yaml(again) == to_yaml(recipe)
    json.dumps(recipe.plain(), allow_nan=False)


def test_numbers_and_words_survive_being_written_out() -> None:
    source = mapping()
    source["optimizer"] = {"kind": "adam", "lr": 1e-05, "eps": 1e-10, "betas": [0.5, 0.9]}
    source["description"] = "yes: 1e-3 # größe '\"\n\t"
    source["tasks"] = {"no": source["tasks"]["a"], "017": source["tasks"]["b"]}
    recipe = load_recipe(source)
    Path("again.yaml").write_text(to_yaml(recipe), encoding="utf-8")
    assert load_recipe("again.yaml").plain() == recipe.plain()


def test_the_digest_is_of_the_meaning_alone() -> None:  # Q6
    def crlf(text: str) -> str:
        return text.replace("\n", "\r\n")

    def commented(text: str) -> str:
        return "# first\n" + text.replace("\n", "  # here\n")

    def quoted(text: str) -> str:
        return re.sub(r"(kind|name|target): (\w+)", "'\\1': \"\\2\"", text)

    def reordered(text: str) -> str:
        lines = text.splitlines()
        tasks = lines.index("tasks:")
        blocks = ["\n".join(lines[tasks : tasks + 3]), "\n".join(lines[tasks + 3 : tasks + 5])]
        blocks += lines[:tasks] + lines[tasks + 5 :]
        return "\n".join(reversed(blocks)).replace("{epochs: 1, batch_size: 8}", "{batch_size: 8, epochs: 1}")

    def spelt_out(text: str) -> str:
        return text.replace("lr: 0.1,", "lr: 1.0e-1, nesterov: false,").replace(
            "momentum: 0.9", "momentum: .9"
        )

    digest = load_recipe("valid.yaml").sha256()
    for change in (crlf, commented, quoted, reordered, spelt_out, lambda text: "\ufeff" + text):
        changed = change(VALID)
        assert changed != VALID
        Path("r.yaml").write_bytes(changed.encode())
        assert load_recipe("r.yaml").sha256() == digest
    for old, new in (("lr: 0.1", "lr: 0.2"), ("  a:", "  c:"), ("name: valid", "name: other")):
        Path("r.yaml").write_text(VALID.replace(old, new), encoding="utf-8")
        assert load_recipe("r.yaml").sha256() != digest


def test_a_whole_number_is_the_same_as_its_fraction() -> None:
    """A file may say `lr: 1`; the run must resume from what it writes."""
    recipe = load_recipe("valid.yaml", ["optimizer.lr=1"])
    assert recipe.sha256() == load_recipe("valid.yaml", ["optimizer.lr=1.0"]).sha256()


CHILD = """
import sys
from mtl.recipe.load import load_recipe, to_yaml
recipe = load_recipe(sys.argv[1])
print(recipe.sha256())
print(to_yaml(recipe))
assert "torch" not in sys.modules
"""


def test_the_digest_does_not_depend_on_the_process() -> None:  # Q15
    def child(**environment: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", CHILD, "fashion_three_tasks"],
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    first = child(PYTHONHASHSEED="0")
    assert first.splitlines()[0] == load_recipe("fashion_three_tasks").sha256()
    assert first == child(PYTHONHASHSEED="1", LANG="C", LC_ALL="C", TZ="Asia/Tokyo")


def test_faults_of_base_and_overrides_come_at_once(run_mtl: Callable[..., Any]) -> None:
    text = on("valid.yaml", "tran: 1\n")
    assert refusal(text, "sed=1").splitlines() == [
        "command line: sed: unknown key 'sed' (did you mean 'seed'?)",
        "r.yaml:4:1: tran: unknown key 'tran' (did you mean 'train'?)",
    ]


def test_a_long_override_is_no_name_of_a_file() -> None:
    text = "x" * 300  # longer than a file may be called
    assert load_recipe("fashion_stitch", [f"description={text}"]).description == text
    assert is_override(f"description={text}")
    with pytest.raises(UserError, match="whole number with too many digits"):
        load_recipe("fashion_stitch", [f"train.epochs={'1' * 300}"])

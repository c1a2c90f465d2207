"""Tasks by pattern, their defaults, and inputs for all sources: what wins over what, and where faults are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl.errors import UserError
from mtl.recipe.load import load_recipe, to_yaml
from tests.support.assertions import Capture, called, refused
from tests.support.recipes import SMALL, as_yaml

TABLE = "id,x,sensor_1,sensor_2,churn_a,churn_b,churn_c,spend,side\n" + "".join(
    f"{i},{i / 3:.2f},{i % 4},{i % 5},{i % 2},{(i + 1) % 2},{i % 2},{i / 7:.2f},{i % 3}\n" for i in range(40)
)
HEAD = """\
schema_version: 1
name: patterns
data:
  source: {kind: table, path: t.csv, inputs: {numeric: [x, "sensor_*"]}}
  split: {test: 0.25}
"""
TAIL = as_yaml({key: SMALL[key] for key in ("model", "optimizer", "train")})
CHURN = ["churn_a", "churn_b", "churn_c"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text(TABLE, encoding="utf-8")
    return tmp_path


def write(tasks: str, more: str = "", head: str = HEAD, tail: str = TAIL) -> str:
    """r.yaml with these lines below `tasks:`, which is on line 6 (7 is the first of them)."""
    lines = "".join(f"  {line}\n" for line in tasks.splitlines())
    Path("r.yaml").write_text(f"{head}tasks:\n{lines}{more}{tail}", encoding="utf-8")
    return "r.yaml"


def tasks(source: Any, *overrides: str) -> dict[str, dict[str, Any]]:
    plain: dict[str, dict[str, Any]] = load_recipe(source, overrides).plain()["tasks"]
    return plain


def refusal(source: Any, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_recipe(source, overrides)
    return str(caught.value)


# --- what a pattern means ---


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("churn_*", CHURN),
        ("churn_?", CHURN),
        ("*_[ab]", ["churn_a", "churn_b"]),
        ("[c]hurn_c", ["churn_c"]),
        ("*end", ["spend"]),
    ],
)
def test_one_task_for_each_column_in_the_order_of_the_table(pattern: str, found: list[str]) -> None:
    recipe = load_recipe(write(f'"{pattern}": {{kind: multiclass}}'))
    assert list(recipe.tasks) == found
    assert [spec.target for spec in recipe.tasks.values()] == found
    assert {spec.kind for spec in recipe.tasks.values()} == {"multiclass"}


def test_the_place_of_a_pattern_is_that_of_its_tasks() -> None:
    recipe = write('spend: {kind: regression, target: spend}\n"churn_*": {kind: binary}')
    assert list(tasks(recipe)) == ["spend", *CHURN]
    recipe = write('"churn_*": {kind: binary}\nspend: {kind: regression, target: spend}')
    assert list(tasks(recipe)) == [*CHURN, "spend"]


def test_a_task_that_is_named_has_the_pattern_underneath() -> None:
    found = tasks(write('churn_b: {weight: 2}\n"churn_*": {kind: binary, weight: 3, label_smoothing: 0.1}'))
    assert list(found) == ["churn_b", "churn_a", "churn_c"]
    assert {name: task["weight"] for name, task in found.items()} == {
        "churn_b": 2,
        "churn_a": 3,
        "churn_c": 3,
    }
    assert {task["label_smoothing"] for task in found.values()} == {0.1}


def test_a_named_task_of_another_kind_stands_alone() -> None:
    found = tasks(write('"churn_*": {kind: binary, weight: 3}\nchurn_b: {kind: regression, target: spend}'))
    assert list(found) == CHURN
    assert {name: task["kind"] for name, task in found.items()}["churn_b"] == "regression"
    assert (found["churn_b"]["weight"], found["churn_b"]["target"]) == (1, "spend")


def test_a_named_task_of_another_kind_has_its_column_as_target() -> None:
    found = tasks(write('"churn_*": {kind: binary, weight: 3}\nchurn_b: {kind: multiclass}'))
    assert {name: (task["kind"], task["target"], task["weight"]) for name, task in found.items()} == {
        "churn_a": ("binary", "churn_a", 3),
        "churn_b": ("multiclass", "churn_b", 1),
        "churn_c": ("binary", "churn_c", 3),
    }
    several = write('"churn_*": {kind: binary}\nchurn_b: {kind: multilabel, targets: [sensor_1, sensor_2]}')
    one = tasks(several)["churn_b"]
    assert (list(one["targets"]), one.get("target")) == (["sensor_1", "sensor_2"], "")


def test_null_leaves_a_column_out() -> None:
    assert list(tasks(write('"churn_*": {kind: binary}\nchurn_b: null'))) == ["churn_a", "churn_c"]


def test_precedence_is_the_task_then_the_pattern_then_the_defaults() -> None:
    recipe = write(
        '"churn_*": {kind: binary, label_smoothing: 0.2, threshold: 0.4}\nchurn_a: {label_smoothing: 0.3}',
        "task_defaults: {label_smoothing: 0.1, threshold: 0.3, weight: 5}\n",
    )
    keys = ("label_smoothing", "threshold", "weight")
    found = {name: tuple(task[key] for key in keys) for name, task in tasks(recipe).items()}
    assert found == {"churn_a": (0.3, 0.4, 5), "churn_b": (0.2, 0.4, 5), "churn_c": (0.2, 0.4, 5)}


def test_overrides_reach_patterns_tasks_and_defaults() -> None:
    recipe = write('"churn_*": {kind: binary}', "task_defaults: {weight: 2}\n")
    assert [task["weight"] for task in tasks(recipe, "task_defaults.weight=4").values()] == [4, 4, 4]
    assert [task["weight"] for task in tasks(recipe, "tasks.churn_*.weight=6").values()] == [6, 6, 6]
    one = tasks(recipe, "tasks.churn_b.weight=9")
    assert {name: task["weight"] for name, task in one.items()} == {"churn_a": 2, "churn_b": 9, "churn_c": 2}
    assert list(one) == CHURN
    assert list(tasks(recipe, "tasks.churn_b=null")) == ["churn_a", "churn_c"]
    moved = tasks(recipe, "data.source.path=t.csv")
    assert list(moved) == CHURN


def test_a_pattern_of_the_base_reaches_the_recipe_on_top(folder: Path) -> None:
    write('"churn_*": {kind: binary, weight: 2}')
    (folder / "r.yaml").rename(folder / "below.yaml")
    top = "schema_version: 1\nname: top\nbase: below.yaml\ntasks: {churn_c: {weight: 7}}\n"
    (folder / "top.yaml").write_text(top, encoding="utf-8")
    assert [task["weight"] for task in tasks("top.yaml").values()] == [2, 2, 7]


def test_written_out_it_needs_no_pattern_and_no_table(folder: Path) -> None:
    recipe = load_recipe(write('"churn_*": {kind: binary}', "task_defaults: {weight: 2}\n"))
    (folder / "flat.yaml").write_text(to_yaml(recipe), encoding="utf-8")
    (folder / "t.csv").unlink()
    assert load_recipe("flat.yaml").sha256() == recipe.sha256()


def test_patterns_in_towers() -> None:
    tail = TAIL.replace("model:\n", 'model:\n  towers: {risk: ["churn_[ab]"], rest: [churn_c, spend]}\n')
    lines = '"churn_*": {kind: binary}\nspend: {kind: regression, target: spend}'
    assert load_recipe(write(lines, tail=tail)).towers == {
        "risk": ("churn_a", "churn_b"),
        "rest": ("churn_c", "spend"),
    }
    text = refusal(write(lines, tail=tail.replace("churn_[ab]", "zzz_*")))
    assert "'zzz_*'" in text
    assert text.startswith("r.yaml:")


def test_several_sources_give_the_columns_of_all(folder: Path) -> None:
    (folder / "u.csv").write_text(TABLE.replace("churn_c", "churn_d"), encoding="utf-8")
    head = """\
schema_version: 1
name: patterns
data:
  inputs: {numeric: [x]}
  sources: {one: {kind: table, path: t.csv}, two: {kind: table, path: u.csv}}
  split: {test: 0.25}
"""
    recipe = load_recipe(write('"churn_*": {kind: binary, missing: mask}', head=head))
    assert list(recipe.tasks) == [*CHURN, "churn_d"]


@pytest.mark.parametrize(
    ("task", "more", "found"),
    [
        ("{kind: binary, source: one}", "", ["churn_a"]),
        ("{kind: binary, source: two}", "", ["churn_a", "churn_b"]),
        ("{kind: binary}", "task_defaults: {source: one}\n", ["churn_a"]),
        ("{kind: binary, source: two}", "task_defaults: {source: one}\n", ["churn_a", "churn_b"]),
        ("{kind: binary, missing: mask}", "", ["churn_a", "churn_b"]),
        ("{kind: binary}", "task_defaults: {kind: regression, source: one}\n", ["churn_a", "churn_b"]),
    ],
)
def test_a_pattern_that_names_its_source_finds_its_columns_alone(
    task: str, more: str, found: list[str], folder: Path
) -> None:
    from mtl.experiment.trial import build_and_try

    (folder / "one.csv").write_text("x,churn_a\n" + "1,0\n2,1\n" * 20, encoding="utf-8")
    (folder / "two.csv").write_text("x,churn_a,churn_b\n" + "1,0,1\n2,1,0\n" * 20, encoding="utf-8")
    head = """\
schema_version: 1
name: patterns
data:
  inputs: {numeric: [x]}
  sources: {one: {kind: table, path: one.csv}, two: {kind: table, path: two.csv}}
  split: {test: 0.25}
"""
    recipe = load_recipe(write(f'"churn_*": {task}', more, head=head))
    assert [spec.target for spec in recipe.tasks.values()] == list(recipe.tasks) == found
    build_and_try(recipe)


def test_arrays_have_columns_too(folder: Path) -> None:
    np.savez(folder / "a.npz", inputs=np.zeros((9, 2)), y_1=np.zeros(9), y_2=np.zeros(9), other=np.zeros(3))
    head = HEAD.replace(
        '{kind: table, path: t.csv, inputs: {numeric: [x, "sensor_*"]}}', "{kind: npz, path: a.npz}"
    )
    assert list(tasks(write('"y_*": {kind: regression}', head=head))) == ["y_1", "y_2"]


# --- faults ---


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (
            '"chrun_*": {kind: binary}',
            "r.yaml:7:14: tasks.chrun_*: no column is called like 'chrun_*'; columns: id, x, sensor_1, sensor_2, "
            "churn_a, churn_b, churn_c, spend, side",
        ),
        (
            '"churn_*": {kind: binary}\n"*_a": {kind: binary}',
            "r.yaml:8:10: tasks.*_a: column 'churn_a' has the pattern 'churn_*' already",
        ),
        (
            '"churn_*": {kind: binary, target: x}',
            "r.yaml:7:37: tasks.churn_*.target: the target of a pattern is each column that it finds; leave it out",
        ),
        ('"churn_*": {kind: binray}', "r.yaml:7:21: tasks.churn_a.kind: unknown task 'binray'"),
        ('"churn_*": {kind: binary, wieght: 2}', "r.yaml:7:29: tasks.churn_a.wieght: unknown key 'wieght'"),
        ('"churn_*": binary', "r.yaml:7:14: tasks.churn_a: a task is a mapping with a key 'kind', got 'binary'"),
        ('"churn_*": {weight: 2}', "r.yaml:7:14: tasks.churn_a.kind: missing key 'kind'"),
        ('"churn_*": {kind: binary}\nchurn_a: {weight: -1}', "r.yaml:8:21: tasks.churn_a.weight: Input should"),
        (
            '"churn_*": {kind: binary}\nchurn_a: 7',
            "r.yaml:8:12: tasks.churn_a: a task is a mapping with a key 'kind', got 7",
        ),
    ],
)  # fmt: skip
def test_a_fault_is_where_it_was_written(lines: str, text: str) -> None:
    first = refusal(write(lines)).splitlines()[0]
    assert first.startswith(text)


def test_a_fault_in_a_pattern_is_said_once_for_all_its_tasks() -> None:
    assert len(refusal(write('"churn_*": {kind: binary, wieght: 2}')).splitlines()) == 1


def test_a_fault_on_the_command_line() -> None:
    recipe = write('"churn_*": {kind: binary}')
    assert refusal(recipe, "tasks.churn_a.weight=-1").startswith(
        "command line: tasks.churn_a.weight: Input should be"
    )
    assert refusal(recipe, "tasks.zz_*.kind=binary").startswith(
        "command line: tasks.zz_*: no column is called like 'zz_*'"
    )
    assert refusal(recipe, "data.source.path=no.csv").startswith(
        "command line: data.source.path: no such file"
    )


def test_a_column_whose_name_is_no_name_of_a_task(folder: Path) -> None:
    (folder / "t.csv").write_text(TABLE.replace("churn_b", "churn b"), encoding="utf-8")
    text = refusal(write('"churn*": {kind: binary}'))
    assert text.startswith("r.yaml:7:3: tasks.churn b: use letters, digits, '_' and '-'")
    assert text.endswith("got 'churn b'")


def test_a_table_that_cannot_be_read() -> None:
    recipe = write('"churn_*": {kind: binary}', head=HEAD.replace("t.csv", "tt.csv"))
    assert refusal(recipe) == "r.yaml:4:31: data.source.path: no such file (did you mean 't.csv'?)"
    missing = write('"churn_*": {kind: binary}', head=HEAD.replace("[x,", "[zz,"))
    assert refusal(missing).startswith("r.yaml:4:57: data.source.inputs.numeric[0]: no column 'zz'")


def test_a_label_that_is_an_input_too() -> None:
    from mtl.experiment.trial import build_and_try

    with pytest.raises(UserError) as caught:
        build_and_try(
            load_recipe(write('"sensor_*": {kind: regression}\nspend: {kind: regression, target: spend}'))
        )
    first, second = (str(error) for error in caught.value.errors)
    assert first.startswith("r.yaml:7:15: tasks.sensor_1.target: column 'sensor_1' is an input too")
    assert second.startswith("r.yaml:7:15: tasks.sensor_2.target: column 'sensor_2' is an input too")


def test_faults_on_the_command_line_are_single_lines(folder: Path, capsys: Capture) -> None:
    recipe = write('"chrun_*": {kind: binary}')
    for command in ("validate", "run", "show", "summary"):
        refused(
            lambda c=command: called(capsys, c, recipe),
            folder,
            ["r.yaml:7:14: tasks.chrun_*: no column is called"],
        )


# --- data.inputs ---


def test_inputs_for_all_sources() -> None:
    head = """\
schema_version: 1
name: patterns
data:
  inputs: {numeric: [x, sensor_1], missing: mean}
  sources:
    one: {kind: table, path: t.csv}
    two: {kind: table, path: t.csv, inputs: {missing: median, categorical: [side]}}
    three: {kind: table, path: t.csv, inputs: null}
  split: {test: 0.25}
"""
    recipe = load_recipe(write("spend: {kind: regression, target: spend}", head=head))
    found = {name: source.model_dump()["inputs"] for name, source in recipe.data.by_name.items()}
    assert {name: inputs["numeric"] for name, inputs in found.items()} == dict.fromkeys(
        found, ("x", "sensor_1")
    )
    assert {name: inputs["missing"] for name, inputs in found.items()} == {
        "one": "mean",
        "two": "median",
        "three": "mean",
    }
    assert [inputs["categorical"] for inputs in found.values()] == [(), ("side",), ()]
    assert recipe.plain()["data"].get("inputs") is None
    nearer = load_recipe("r.yaml", ["data.inputs.missing=median"])
    assert nearer.data.by_name["one"].model_dump()["inputs"]["missing"] == "median"


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        (
            "{numeric: [x], mising: mean}",
            "r.yaml:4:26: data.source.inputs.mising: unknown key 'mising' (did you mean",
        ),
        ("{numeric: x}", "r.yaml:4:21: data.source.inputs.numeric: Input should be a list, got str 'x'"),
        ("[x]", "r.yaml:4:11: data.inputs: Input should be a mapping, got list"),
        ("{}", "r.yaml:4:11: data.source.inputs: no input columns"),
    ],
)
def test_a_fault_in_inputs_for_all_sources(inputs: str, text: str) -> None:
    head = HEAD.replace('  source: {kind: table, path: t.csv, inputs: {numeric: [x, "sensor_*"]}}\n',
                        f"  inputs: {inputs}\n  source: {{kind: table, path: t.csv}}\n")  # fmt: skip
    found = refusal(write("spend: {kind: regression, target: spend}", head=head))
    assert text in found


# --- written out ---

WORDS = [
    "y",
    "n",
    "Y",
    "no",
    "on",
    "1",
    "017",
    "1e-3",
    "null",
    "~",
    "",
    "a: b",
    "#x",
    "*",
    "- a",
    "x\ny",
    "'",
    '"',
    "é",
    "\u2028",
]


@pytest.mark.parametrize("word", WORDS)
def test_any_word_survives_being_written_out(word: str, folder: Path) -> None:
    recipe = load_recipe(write("spend: {kind: multiclass, target: spend}"), ["description=x"])
    plain = recipe.plain()
    plain["description"] = word
    plain["tasks"]["spend"]["target"] = word or "x"
    loaded = load_recipe(plain)
    (folder / "flat.yaml").write_text(to_yaml(loaded), encoding="utf-8")
    again = load_recipe("flat.yaml")
    assert (again.description, again.tasks["spend"].target) == (word, word or "x")

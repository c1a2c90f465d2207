"""What run.json and the logs may hold: whatever a run writes, and nothing of another form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mtl.errors import ENVIRONMENT, EnvironmentFault, UserError
from mtl.runs.logs import read_lines
from mtl.runs.record import MOST_INPUTS, PUT_BACK, Selected, read_record, unreadable
from tests.support.records import record_values


def write(folder: Path, values: Any) -> Path:
    path = folder / "run.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def test_a_record_comes_back_as_it_is(tmp_path: Path) -> None:
    """Whole numbers stay whole, keys keep their order, and those of a later release are let pass."""
    values = record_values(results={"test/a/labels": 3, "test/a/loss": None}, of_tomorrow=[1], zzz={"a": 1})
    found = read_record(write(tmp_path, values))
    assert json.dumps(found.plain()) == json.dumps(values)
    assert (found.selected, found.results["test/a/labels"]) == (None, 3)


def test_a_key_that_is_set_is_written(tmp_path: Path) -> None:
    found = read_record(write(tmp_path, record_values()))
    found.selected, found.stopped_early = Selected(step=8, epoch=2), False
    assert found.plain() == record_values(selected={"step": 8, "epoch": 2}, stopped_early=False)
    found.selected = found.stopped_early = None
    assert found.plain() == record_values()


def test_a_key_that_each_run_writes_must_be_there(tmp_path: Path) -> None:
    for key in record_values():
        if key != "schema_version":
            values = record_values()
            del values[key]
            with pytest.raises(UserError) as caught:
                read_record(write(tmp_path, values))
            assert str(caught.value) == f"{tmp_path}/run.json: has no '{key}'; {PUT_BACK}"


def test_every_section_is_checked(tmp_path: Path) -> None:
    """Of each key that a run writes, a value of no form that it could have."""
    whole = record_values(
        results={"test/a/loss": 0.5}, selected={"step": 8, "epoch": 2}, plugin_sha256={}, model_sha256="", epoch=2,
        changes=[{"step": 1, "changed": []}], decisions={}, resolved_sha256=[], stopped_early=False, skipped_steps=0,
    )  # fmt: skip
    read_record(write(tmp_path, whole))
    keys = [key for key in whole if key != "schema_version"]
    assert len(keys) == 27
    for key in keys:
        for wrong in (None, {"": {"": [{}]}}):
            with pytest.raises(UserError) as caught:
                read_record(write(tmp_path, {**whole, key: wrong}))
            assert str(caught.value).startswith(f"{tmp_path}/run.json: {key}"), key
            assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("step", True, "step is True, which no run writes"),
        ("step", 10**8, "step is 100000000, which no run writes"),
        ("threads", 1025, "threads is 1025, which no run writes"),
        ("name", "x" * 1001, "name is 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...', which no run writes"),
        ("results", {"a/b/c": 10**400}, "results.a/b/c is 100000000000000000000000000000000000...0, which no run"),
        ("results", {"a/b/c/d": 1}, "results has a key 'a/b/c/d', which no run writes"),
        ("results", {"\x1b": 1}, "results has a key '\\x1b', which no run writes"),
        ("changes", [{"step": 1}], "changes[0] has no 'changed'"),
        ("model.input_shape", [], "model.input_shape is [], which no run writes"),
        ("model.input_shape", [0], "model.input_shape[0] is 0, which no run writes"),
        ("model.input_shape", [MOST_INPUTS, 2], f"model: more than {MOST_INPUTS} inputs"),
        ("model.layout", {"x": 1}, "model.layout has no 'numeric'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(path: str, value: Any, text: str, tmp_path: Path) -> None:
    section, _, key = path.partition(".")
    whole = record_values()
    changed = {section: {**whole[section], key: value} if key else value}
    with pytest.raises(UserError) as caught:
        read_record(write(tmp_path, {**whole, **changed}))
    assert str(caught.value).startswith(f"{tmp_path}/run.json: {text}")
    assert str(caught.value).endswith(PUT_BACK)


def test_a_layout_has_the_values_of_its_categories(tmp_path: Path) -> None:
    layout = {
        "numeric": ["x"], "vectors": {"v": 3}, "categorical": ["c"], "values": {"c": ["u", "w"]},
        "missing": "mean", "indicator": True, "embedding": 4, "dates": ["d"],
    }  # fmt: skip
    model = record_values()["model"]
    read_record(write(tmp_path, record_values(model={**model, "layout": layout})))
    with pytest.raises(UserError, match=r"model\.layout: values are not those of the categorical columns"):
        read_record(write(tmp_path, record_values(model={**model, "layout": {**layout, "values": {}}})))


# --- lines of logs ---

ROW = {
    "split": "train",
    "epoch": 1,
    "step": 4,
    "train/a/loss": 0.5,
    "train/a/labels": 3,
    "train/a/auroc": None,
}
GATES = {"targets": ["a", "b"], "sources": ["e", "f", "g"], "values": [[1, 0.5, 0], [0.5, 1.0, 0]]}
SHARED = {
    "epoch": 1,
    "step": 4,
    "sharing": {"gates": GATES, "fc2": {"targets": ["a"], "sources": ["a"], "values": [[1]]}},
}


@pytest.mark.parametrize(
    ("name", "row"), [("metrics.jsonl", ROW), ("sharing.jsonl", SHARED), ("timings.jsonl", {"x": 1})]
)
def test_lines_come_back_as_they_are(name: str, row: dict[str, Any], tmp_path: Path) -> None:
    line = json.dumps(row) + "\n"
    (tmp_path / name).write_text(line * 3 + '{"cut', encoding="utf-8")
    assert json.dumps(read_lines(tmp_path / name)) == json.dumps([row] * 3)
    assert read_lines(tmp_path / name, 2 * len(line)) == [row] * 2
    assert read_lines(tmp_path / name, 0) == read_lines(tmp_path / "not there") == []


@pytest.mark.parametrize(
    ("name", "line", "text"),
    [
        ("metrics.jsonl", "", "cannot be read: Expecting value: line 1 column 1 (char 0)"),
        ("metrics.jsonl", "null", "is no object"),
        ("metrics.jsonl", "[" * 100_000, "cannot be read: maximum recursion depth exceeded"),
        ("metrics.jsonl", "\0" * 40, "cannot be read: Expecting value"),
        ("metrics.jsonl", "{}", "has no 'split'"),
        ("metrics.jsonl", json.dumps({**ROW, "epoch": "1"}), "epoch is '1', which no run writes"),
        ("metrics.jsonl", json.dumps({**ROW, "loss": 1}), "has a key 'loss', which no run writes"),
        ("metrics.jsonl", json.dumps({**ROW, "a/b/c": "x"}), "a/b/c is 'x', which no run writes"),
        ("metrics.jsonl", json.dumps({**ROW, "a/b/c": float("inf")}), "a/b/c is inf, which no run writes"),
        ("metrics.jsonl", json.dumps({**ROW, "a/b/c": [1]}), "a/b/c is [1], which no run writes"),
        ("sharing.jsonl", json.dumps({**SHARED, "sharing": {}}), "sharing is {}, which no run writes"),
        ("sharing.jsonl", json.dumps({**SHARED, "sharing": {"a": 1}}), "sharing.a is 1, which no run writes"),
        ("sharing.jsonl", json.dumps({**SHARED, "sharing": {"a": {**GATES, "values": []}}}), "sharing.a: the values"),
        ("sharing.jsonl", json.dumps({**SHARED, "sharing": {"a": {**GATES, "values": [[1, 2, 3], [4]]}}}),
         "sharing.a: the values are not a row for each target and a column for each source"),
        ("sharing.jsonl", json.dumps({**SHARED, "sharing": {"a": {**GATES, "sources": ["e"]}}}), "sharing.a: the"),
        ("timings.jsonl", "3", "is no object"),
    ],
)  # fmt: skip
def test_a_line_that_no_run_writes_is_named(name: str, line: str, text: str, tmp_path: Path) -> None:
    good = {"metrics.jsonl": ROW, "sharing.jsonl": SHARED}.get(name, {})
    (tmp_path / name).write_text(f"{json.dumps(good)}\n{line}\n{json.dumps(good)}\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_lines(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path}/{name}:2: {text}")
    assert str(caught.value).endswith(f"; {PUT_BACK}")
    assert str(caught.value).isprintable()


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"metrics\.jsonl: cannot be read: is not a regular file$"):
        read_lines(tmp_path / "metrics.jsonl")


def test_permissions_are_the_machines() -> None:
    fault = unreadable(Path("run.json"), PermissionError(13, "Permission denied"))
    assert isinstance(fault, EnvironmentFault)
    assert (fault.code, str(fault)) == (ENVIRONMENT, "run.json: cannot be read: permission denied")
    assert type(unreadable(Path("run.json"), IsADirectoryError(21, "Is a directory"))) is UserError

"""What does not fit a label column is refused on the command line: one line, its place, nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.assertions import Capture, called, refused

COLUMNS = {
    "grade": [0, 1, 2, 3, 1, 2, 0, 3],
    "late": [0, 1, 2, 3, 1, 10, 0, 3],
    "below": [0, 1, 2, -1, 1, 2, 0, 2],
    "half": [0, 1, 1.5, 1, 1, 0, 0, 1],
    "flag": [0, 1, 0, 1, 1, 0, 0, 1],
    "same": [1, 1, 1, 1, 1, 1, 1, 1],
    "income": ["<=50K", ">50K", "<=50K", ">50K", "<=50K", ">50K", ">50K", "<=50K"],
    "size": ["s", "m", "l", "s", "m", "l", "s", "m"],
    "tags": ["a|b", "b", "a", "c", "b", "a", "a", "b"],
    "mixed": ["Yes", "no", "Yes", "no", "no", "Yes", "no", "no"],
    "amount": [1.5, 2.5, 3.5, 1, 2, 3, 4, 5],
    "huge": ["1e300", "-1e300", "1e300", 1, 2, 3, 4, 5],
    "hole": [1.5, "", 3.5, 1, 2, 3, 4, 5],
    "w": [1, 1, -1, 1, 1, 1, 1, 1],
}
HEAD = """\
schema_version: 1
name: r
data: {source: {kind: table, path: t.csv, inputs: {numeric: [x]}}, split: {column: split}}
model: {backbone: {kind: layers, stages: [{name: fc, kind: linear, features: 2}]}}
optimizer: {kind: sgd, lr: 0.1}
train: {epochs: 1}
tasks:
"""
SPLITS = ["train"] * 5 + ["test"] * 3


def cases() -> tuple[list[tuple[str, list[str]]], list[tuple[str, list[str]]]]:
    """Those of `validate` and those of `run`."""
    parts: list[list[tuple[str, list[str]]]] = []
    for line in Path(__file__).with_name("refused.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            parts.append([])
        elif line.startswith(" "):
            parts[-1][-1][1].append(line.strip())
        elif line:
            parts[-1].append((line, []))
    validate, run = parts
    return validate, run


VALIDATE, RUN = cases()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    names = ["x", "split", *COLUMNS]
    rows = zip(range(8), SPLITS, *COLUMNS.values(), strict=True)
    lines = [",".join(names), *(",".join(map(str, row)) for row in rows)]
    (tmp_path / "t.csv").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


def write(folder: Path, task: str) -> None:
    (folder / "r.yaml").write_text(f"{HEAD}  it: {{{task}}}\n", encoding="utf-8")


@pytest.mark.parametrize(("task", "expected"), VALIDATE, ids=[task for task, _ in VALIDATE])
def test_refused_before_rows_are_read(task: str, expected: list[str], folder: Path, capsys: Capture) -> None:
    write(folder, task)
    refused(lambda: called(capsys, "validate", "r.yaml"), folder, expected)


@pytest.mark.parametrize(("task", "expected"), RUN, ids=[task for task, _ in RUN])
def test_refused_once_labels_are_read(task: str, expected: list[str], folder: Path, capsys: Capture) -> None:
    write(folder, task)
    assert called(capsys, "validate", "r.yaml").returncode == 0, "this belongs to VALIDATE"
    refused(lambda: called(capsys, "run", "r.yaml", "--out", "run"), folder, expected)


def test_every_kind_is_among_them() -> None:
    assert (len(VALIDATE), len(RUN)) == (27, 35)
    kinds = ("binary", "multiclass", "multilabel", "ordinal", "regression")
    for cases, least in ((VALIDATE, 2), (RUN, 3)):
        assert all(sum(task.startswith(f"kind: {kind}") for task, _ in cases) >= least for kind in kinds)


@pytest.mark.parametrize(
    "task",
    [
        "kind: binary, target: income, positive: '>50K', threshold: 0.3",
        "kind: binary, target: grade, positive: [2, 3], positive_weight: balanced, label_smoothing: 0.1",
        "kind: binary, target: mixed",
        "kind: multiclass, target: income, class_weights: {'>50K': 3}",
        "kind: multiclass, target: size, classes: [s, m, l, xl], class_weights: balanced",
        "kind: multiclass, target: below, classes: [-1, 0, 1, 2]",
        "kind: ordinal, target: below, order: [-1, 0, 1, 2], label_smoothing: 0.1, class_weights: balanced",
        "kind: ordinal, target: income, order: ['<=50K', '>50K']",
        "kind: multilabel, target: tags, labels: [c, a, b], positive_weight: {a: 2}, threshold: 0.4",
        "kind: multilabel, targets: [flag, same], positive_weight: balanced, label_smoothing: 0.1",
        "kind: regression, target: hole, missing: mask, loss: huber, delta: 0.5, unit: EUR",
        "kind: regression, target: amount, head: {hidden: [4, 3], dropout: 0.1}",
    ],
)
def test_accepted_to_the_end(task: str, folder: Path, capsys: Capture) -> None:
    write(folder, task)
    done = called(capsys, "run", "r.yaml", "--out", "run", "--quiet")
    assert done.returncode == 0, done.stderr
    assert all(line.startswith("warning: ") for line in done.stderr.splitlines())
    predicted = called(capsys, "predict", "run", "--input", "t.csv", "--output", "p.csv")
    assert predicted.returncode == 0, predicted.stderr
    assert len((folder / "p.csv").read_text(encoding="utf-8").splitlines()) == 9

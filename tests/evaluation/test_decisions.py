"""Thresholds and temperatures: what is fitted is the best there is, on validation alone, and it is used."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.classification import BinaryAccuracy, BinaryF1Score, MulticlassAccuracy

import mtl
from mtl.build import Built
from mtl.dataset.undefined import fitted_by
from mtl.evaluation.decisions import apply, best_threshold, decide, fitted_temperature
from mtl.model.stitched import StitchedMultiTower
from mtl.model.tasks.heads import GroupedHead
from mtl.model.tasks.module import TaskModule
from mtl.model.trunk import Trunk
from mtl.recipe.specs import TASKS
from tests.support.assertions import Capture, called, refused
from tests.support.listening import Watching
from tests.support.task_samples import OPTIONS, encoded, example, module_of, outputs_of

METRICS = ("f1", "balanced_accuracy", "accuracy")


def score(p: Tensor, target: Tensor, threshold: float, metric: str) -> float:
    """torchmetrics' value at a threshold."""
    if metric == "f1":
        return BinaryF1Score(threshold)(p, target).item()
    if metric == "accuracy":
        return BinaryAccuracy(threshold)(p, target).item()
    return MulticlassAccuracy(2)((p >= threshold).long(), target).item()


# -- thresholds --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("levels", [4, 1000])  # of 4 levels many rows are tied
def test_no_threshold_is_better(metric: str, levels: int) -> None:
    for _ in range(5):
        target = (torch.rand(60) < 0.3).long()
        p = ((torch.rand(60) + 0.4 * target).clamp(max=1) * levels).round() / levels * 0.9 + 0.05
        found = best_threshold(p, target, metric)
        tried = [
            0.0,
            *((a + b) / 2 for a, b in zip(p.unique()[:-1].tolist(), p.unique()[1:].tolist(), strict=True)),
            1.0,
        ]
        best = max(score(p, target, threshold, metric) for threshold in tried)
        assert score(p, target, found, metric) == pytest.approx(best, abs=1e-6)


def test_it_lies_half_way_between_two_rows() -> None:
    p, target = torch.tensor([0.2, 0.4, 0.8, 0.9]), torch.tensor([0, 0, 1, 1])
    assert [best_threshold(p, target, metric) for metric in METRICS] == pytest.approx([0.6] * 3)


def test_beyond_the_last_row_it_lies_half_way_to_0_or_1() -> None:
    p = torch.tensor([0.2, 0.6, 0.6])
    assert best_threshold(p, torch.tensor([1, 0, 0]), "accuracy") == pytest.approx(0.8)
    assert best_threshold(p, torch.tensor([1, 0, 0]), "f1") == pytest.approx(0.1)


def test_rows_with_equal_logits_are_not_told_apart() -> None:
    """A sigmoid of 60 equal float32 numbers differs in the last bit between the first 56 and the others."""
    spec = TASKS["binary"].model_validate({"kind": "binary", "target": "y", "fit_threshold": "f1"})
    module = spec.build(
        GroupedHead(["y"], [0], 1, 2, 1), {"temperature": torch.ones(1), "threshold": torch.ones(1)}
    )
    for logit in torch.linspace(-4, 0, 50).tolist():
        target = torch.arange(60) >= 54  # the rows at the end alone are yes
        found = decide(spec, module, torch.full((60, 1), logit), target.long(), fitted_by(spec))
        assert found["threshold"][0] == pytest.approx(1 / (1 + math.exp(-logit)) / 2)


def test_neighbours_in_float32_are_told_apart() -> None:
    """Half way between two neighbouring numbers there is none: the threshold is the upper one."""
    low = torch.tensor(0.7)
    high = torch.nextafter(low, torch.tensor(1.0))
    found = best_threshold(torch.stack([low, high]), torch.tensor([0, 1]), "accuracy")
    assert torch.tensor(found) == high


@pytest.mark.parametrize("p", [[1.0, 1.0, 0.0], [0.999999, 1.0, 0.5]])
def test_probabilities_of_exactly_0_and_1(p: list[float]) -> None:
    probabilities, target = torch.tensor(p), torch.tensor([0, 0, 1])
    found = best_threshold(probabilities, target, "accuracy")
    assert ((probabilities >= found).long() == target).float().mean() == pytest.approx(2 / 3)


@pytest.mark.parametrize("target", [[0, 0, 0], [1, 1, 1], []])
@pytest.mark.parametrize("metric", METRICS)
def test_without_both_answers_nothing_is_chosen(target: list[int], metric: str) -> None:
    p = torch.linspace(0.1, 0.9, len(target))
    assert best_threshold(p, torch.tensor(target, dtype=torch.long), metric, 0.25) == 0.25


def test_each_of_several_labels_has_its_own() -> None:
    spec = TASKS["multilabel"](targets=("a", "b", "c"), fit_threshold="accuracy", threshold=0.3)
    logits = torch.tensor([[1.0, -2.0, 0.0], [2.0, -1.0, 0.0], [3.0, 5.0, 0.0]])
    target = torch.tensor([[0, 0, 1], [1, 1, -1], [-1, 1, 1]])
    found = decide(spec, module_of(spec, 3, {}), logits, target, fitted_by(spec))
    halves = [(torch.tensor(z).sigmoid().sum() / 2).item() for z in ([1.0, 2.0], [-2.0, -1.0])]
    assert set(found) == {"threshold"}
    assert found["threshold"] == pytest.approx([*halves, 0.3])  # c has no `not there`


# -- temperatures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
def test_a_known_scale_is_recovered(kind: str, scale: float) -> None:
    """Labels are drawn with the probabilities of some logits; the network says `scale` times these logits."""
    spec = example(kind, temperature=True)
    generator = np.random.default_rng(0)
    if kind == "multiclass":
        logits = generator.normal(size=(20_000, 3)) * 2
        target = (logits + generator.gumbel(size=logits.shape)).argmax(-1)
    else:
        logits = generator.normal(size=(20_000, 1 if kind == "binary" else 3)) * 2
        target = (logits + generator.logistic(size=logits.shape) > 0).astype(np.int64)
        target = (
            target[:, 0] if kind == "binary" else np.where(generator.random(target.shape) < 0.2, -1, target)
        )
    module = module_of(spec, logits.shape[1], {})
    found = fitted_temperature(module, torch.from_numpy(logits * scale), torch.from_numpy(target))
    assert found == pytest.approx(scale, rel=0.05)


def test_the_threshold_is_one_of_the_calibrated_probabilities() -> None:
    spec = TASKS["binary"](target="x", temperature=True, fit_threshold="accuracy")
    target = torch.tensor([0, 1] * 50)
    logits = torch.where(target == 1, 1.0, -1.0).unsqueeze(-1) + torch.linspace(0, 0.5, 100)[:, None]
    logits[0], logits[1] = 3.0, -3.0  # two are wrong, so that the temperature has a finite best
    found = decide(spec, module_of(spec, 1, {}), logits, target, fitted_by(spec))
    calibrated = (logits[:, 0] / found["temperature"][0]).sigmoid()
    assert ((calibrated >= found["threshold"][0]).long() == target).float().mean() == pytest.approx(0.98)


@pytest.mark.parametrize("kind", sorted(OPTIONS))
def test_whoever_may_ask_for_a_temperature_has_a_likelihood(kind: str) -> None:
    spec = example(kind)
    assert fitted_by(spec) == ()
    fields = type(spec).model_fields
    outputs = outputs_of(spec)
    module = module_of(spec, spec.n_outputs(outputs), spec.constants(encoded(spec), outputs))
    own = type(module).negative_log_likelihood
    assert ("temperature" in fields) == (own is not TaskModule.negative_log_likelihood)
    if "fit_threshold" in fields:
        assert fitted_by(example(kind, fit_threshold="f1")) == ("threshold",)
        assert fitted_by(example(kind, fit_threshold="f1", temperature=True)) == ("temperature", "threshold")
        assert "threshold" in fields


# -- in a run ----------------------------------------------------------------------------------------------


def test_tasks_of_one_group_keep_their_own_numbers() -> None:
    spec = TASKS["binary"](target="x")
    constants = {"threshold": torch.tensor([0.5, 0.4]), "temperature": torch.ones(2)}
    module = spec.build(GroupedHead(("a", "b"), (0, 0), 1, 1, 1), constants)
    network = StitchedMultiTower(Trunk(("tower",), (1,), (0, 0)), {"g": module})
    apply(Built(network, ()), {"a": {"threshold": (0.25,)}, "b": {"temperature": (2.0,)}})
    assert module.get_buffer("threshold").tolist() == pytest.approx([0.25, 0.4])
    assert module.get_buffer("temperature").tolist() == [1.0, 2.0]
    assert constants["threshold"].tolist() == pytest.approx([0.5, 0.4])
    assert constants["temperature"].tolist() == [1.0, 1.0]


def recipe(folder: Path, **task: Any) -> dict[str, Any]:
    """Rare answers, of which a network that was trained for long is too sure."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(400, 6))
    rare = (x[:, 0] + generator.normal(size=400) > 1.4).astype(int)
    kind = 1 + (x[:, 1] > 0).astype(int) + (x[:, 2] + generator.normal(size=400) > 0)
    rows = np.column_stack([np.round(x, 5), rare, kind]).tolist()
    lines = [",".join(f"{v:g}" for v in row) for row in rows]
    (folder / "t.csv").write_text("\n".join(["a,b,c,d,e,f,rare,kind", *lines]), encoding="utf-8")
    return {
        "schema_version": 1,
        "name": "decided",
        "data": {
            "source": {"kind": "table", "path": str(folder / "t.csv"), "inputs": {"numeric": list("abcdef")}},
            "split": {"validation": 0.3, "test": 0.3},
        },
        "tasks": {
            "rare": {"kind": "binary", "target": "rare", **task},
            "plain": {"kind": "binary", "target": "rare"},
            "kind": {"kind": "multiclass", "target": "kind", "temperature": True,
                     "metrics": ["accuracy", "calibration_error"]},
        },
        "model": {"backbone": {"kind": "layers", "stages": [{"name": "fc", "kind": "linear", "features": 32}]}},
        "optimizer": {"kind": "adam", "lr": 0.01},
        "train": {"epochs": 12, "batch_size": 32},
    }  # fmt: skip


def test_what_was_fitted_is_saved_and_used_by_predict_and_eval(tmp_path: Path) -> None:
    fitted = recipe(tmp_path, temperature=True, fit_threshold="f1")
    run = mtl.run(fitted, out=tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    decisions = record["decisions"]
    assert {task: set(found) for task, found in decisions.items()} == {
        "rare": {"temperature", "threshold"},
        "kind": {"temperature"},
    }
    model = mtl.load(run.path)
    for split in ("validation", "test"):
        again = model.evaluate(split)
        assert {n: v for n, v in run.metrics.items() if n.startswith(split)} == pytest.approx(again, abs=1e-6)

    plain = mtl.load(mtl.run(recipe(tmp_path), ["~tasks.kind.temperature"], out=tmp_path / "plain").path)
    ours, theirs = model.predict(str(tmp_path / "t.csv")), plain.predict(str(tmp_path / "t.csv"))

    def logit(p: Any) -> Any:
        return np.log(p) - np.log1p(-np.asarray(p, dtype=np.float64))

    threshold, temperature = decisions["rare"]["threshold"][0], decisions["rare"]["temperature"][0]
    np.testing.assert_allclose(
        logit(ours["rare_p"]) * temperature, logit(theirs["rare_p"]), rtol=1e-3, atol=1e-3
    )
    assert [a == 1 for a in ours["rare"]] == [p >= np.float32(threshold) for p in ours["rare_p"]]
    assert list(ours["rare"]) != list(theirs["rare"])
    assert list(ours["plain"]) == list(theirs["plain"])  # in one group with `rare`, and left alone
    np.testing.assert_array_equal(ours["plain_p"], theirs["plain_p"])
    assert list(ours["kind"]) == list(theirs["kind"])
    power = np.asarray(theirs["kind_p_1"], np.float64) ** (1 / decisions["kind"]["temperature"][0])
    others = [
        np.asarray(theirs[f"kind_p_{c}"], np.float64) ** (1 / decisions["kind"]["temperature"][0])
        for c in (2, 3)
    ]
    np.testing.assert_allclose(ours["kind_p_1"], power / (power + sum(others)), rtol=1e-3)

    # on validation they are the best there is, and the metrics say so
    before, after = plain.evaluate("validation"), model.evaluate("validation")
    assert after["validation/rare/f1"] > before["validation/rare/f1"]  # type: ignore[operator]
    assert after["validation/kind/calibration_error"] < before["validation/kind/calibration_error"]  # type: ignore[operator]
    assert after["validation/plain/f1"] == before["validation/plain/f1"]


def test_test_rows_are_not_looked_at(tmp_path: Path) -> None:
    """Other answers in the test rows alone leave what is fitted as it is."""
    found = []
    for turned in (False, True):
        text = recipe(tmp_path, temperature=True, fit_threshold="f1")
        lines = (tmp_path / "t.csv").read_text(encoding="utf-8").splitlines()
        parts = {"validation.csv": lines[281:341], "test.csv": lines[341:]}
        if turned:
            parts["test.csv"] = [
                ",".join([*row.split(",")[:6], str(1 - int(row.split(",")[6])), row.split(",")[7]])
                for row in parts["test.csv"]
            ]
        for name, rows in parts.items():
            (tmp_path / name).write_text("\n".join([lines[0], *rows]), encoding="utf-8")
        (tmp_path / "t.csv").write_text("\n".join(lines[:281]), encoding="utf-8")
        text["data"] = {"source": {**text["data"]["source"], "validation": str(tmp_path / "validation.csv"),
                                   "test": str(tmp_path / "test.csv")}}  # fmt: skip
        run = mtl.run(text, ["train.epochs=3"], out=tmp_path / f"run{turned}")
        found.append((run.record.decisions, run.metrics["test/plain/accuracy"]))
    assert found[0][0] == found[1][0]
    assert found[0][1] != found[1][1]


@pytest.mark.parametrize(
    ("task", "option"),
    [
        ("kind: binary, target: x, positive: 1, temperature: true", "temperature"),
        ("kind: binary, target: x, positive: 1, fit_threshold: f1", "fit_threshold"),
        ("kind: multilabel, targets: [x, z], fit_threshold: f1", "fit_threshold"),
        ("kind: multiclass, target: x, temperature: true", "temperature"),
    ],
)
def test_they_need_a_validation_split(
    task: str, option: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("a,x,z\n1,0,1\n2,1,0\n3,1,1\n4,0,0\n", encoding="utf-8")
    (tmp_path / "r.yaml").write_text(
        "schema_version: 1\nname: r\n"
        "data: {source: {kind: table, path: t.csv, inputs: {numeric: [a]}}, split: {test: 0.5}}\n"
        f"tasks:\n  it: {{{task}}}\n"
        "model: {backbone: {kind: layers, stages: [{name: fc, kind: linear, features: 2}]}}\n"
        "optimizer: {kind: sgd, lr: 0.1}\ntrain: {epochs: 1}\n",
        encoding="utf-8",
    )
    expected = (
        f"r.yaml:5: ... tasks.it.{option}: there is no validation split to fit it on; "
        "write data.split: {validation: 0.1}"
    )
    for command in ("validate", "run"):
        refused(lambda command=command: called(capsys, command, "r.yaml"), tmp_path, [expected])  # type: ignore[misc]


def test_of_a_single_class_nothing_is_fitted(tmp_path: Path) -> None:
    """Its likelihood would be the greatest at the edge of what is searched; other tasks have their numbers."""
    text = recipe(tmp_path, temperature=True, fit_threshold="f1", positive=7)
    text["data"]["split"] = {"column": "part"}
    lines = (tmp_path / "t.csv").read_text(encoding="utf-8").splitlines()
    parts = ["train"] * 300 + ["validation"] * 50 + ["test"] * 50
    rows = [row.split(",") for row in lines[1:]]
    rows = [
        [*row[:6], "8" if part == "validation" else "78"[i % 2], row[7], part]
        for i, (row, part) in enumerate(zip(rows, parts, strict=True))
    ]
    text["tasks"]["plain"]["positive"] = 7
    (tmp_path / "t.csv").write_text("\n".join([f"{lines[0]},part", *map(",".join, rows)]), encoding="utf-8")
    text["train"]["epochs"] = 2
    heard = Watching()
    run = mtl.run(text, out=tmp_path / "run", listeners=(heard,))
    assert set(run.record.decisions or {}) == {"kind"}
    assert (
        "task 'rare' has a single class in validation: auroc, average_precision and f1 are undefined there, "
        "and no temperature and no threshold is fitted"
    ) in heard.warnings

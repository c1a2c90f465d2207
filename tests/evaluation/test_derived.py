"""The baseline of a task that is derived from another: what the other one's prediction alone reaches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtl.build import Built, build
from mtl.dataset.assemble import Dataset, load_dataset
from mtl.dataset.header import header_of
from mtl.evaluation.derived import Deriving, derived_baselines
from mtl.evaluation.evaluate import evaluate
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe
from mtl.recipe.specs import TASKS
from tests.support import task_samples
from tests.support.assertions import Capture, called
from tests.support.tables import recipe_in, write_rows

N = 300
BEAST = {"kind": "multiclass", "target": "beast"}
LARGE = {"kind": "binary", "target": "large", "metrics": ["accuracy", "auroc"], "derived_from": "beast"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(8)
    rows: list[dict[str, object]] = []
    for i in range(N):
        u, v = rng.normal(size=2)
        beast = int(np.digitize(u + 0.5 * rng.normal(), [-1, 0, 1]))
        rows.append(
            {
                "u": f"{u:.4f}",
                "v": f"{v:.4f}",
                "part": ("train", "train", "validation", "test")[i % 4],
                "beast": ("ant", "bee", "cow", "doe")[beast],
                "large": "yes" if beast in (0, 3) else "no",
                "grade": beast // 2,
                "sort": "pqq p"[beast].replace(" ", "r"),
            }
        )
    write_rows(tmp_path / "t.csv", rows)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(folder: Path, **tasks: Any) -> tuple[Recipe, Built, Dataset]:
    recipe_in(folder, tasks)
    recipe = load_recipe("r.yaml")
    dataset = load_dataset(recipe, header_of(recipe))
    return recipe, build(recipe, dataset.header, dataset.learned), dataset


def probabilities(built: Built, dataset: Dataset, task: str) -> np.ndarray:
    """(n, C) of the test rows, as the network predicts them."""
    with torch.inference_mode():
        built.model.eval()
        logits = built.model(dataset.rows.batch(dataset.splits["test"]).inputs)
        group, t = built.model.places[task]
        p: np.ndarray = (
            built.model.modules_of_tasks()[group].class_probabilities(logits.groups[group])[:, t].numpy()
        )
    return p


def truth(dataset: Dataset, built: Built, task: str) -> np.ndarray:
    group, t = built.model.places[task]
    target: np.ndarray = dataset.rows.target[group][dataset.splits["test"], t].numpy()
    return target


def test_probabilities_of_the_classes_that_stand_for_one_are_added_up(folder: Path) -> None:
    recipe, built, dataset = made(folder, beast=BEAST, large=LARGE)
    values = derived_baselines(recipe, built, dataset, "test")
    assert set(values) == {"test/large/derived"}
    p = probabilities(built, dataset, "beast")
    yes = p[:, 0] + p[:, 3] >= 0.5
    large = truth(dataset, built, "large")
    assert values["test/large/derived"] == pytest.approx(float((yes == large).mean()))
    by_class = np.isin(p.argmax(1), [0, 3])
    assert (by_class != yes).any()  # the most probable class alone would say something else
    recipe, built, dataset = made(folder, beast=BEAST, large={**LARGE, "metrics": ["auroc"]})
    from scipy.stats import rankdata

    score = p[:, 0] + p[:, 3]
    ranks, n_yes = rankdata(score)[large == 1].sum(), int(large.sum())
    auroc = (ranks - n_yes * (n_yes + 1) / 2) / (n_yes * (len(large) - n_yes))
    assert derived_baselines(recipe, built, dataset, "test")["test/large/derived"] == pytest.approx(
        auroc, abs=2e-3
    )


@pytest.mark.parametrize(
    ("kind", "target", "metric"),
    [
        ("multiclass", "sort", "accuracy"),
        ("multiclass", "sort", "macro_f1"),
        ("ordinal", "grade", "quadratic_kappa"),
        ("ordinal", "grade", "mae"),
        ("binary", "large", "f1"),
        ("binary", "large", "brier"),
    ],
)
def test_every_kind_with_one_class_can_be_derived(kind: str, target: str, metric: str, folder: Path) -> None:
    """A network that knows the other task without a fault gives a perfect baseline; an untrained one does not."""
    task = {"kind": kind, "target": target, "metrics": [metric], "derived_from": "beast"}
    recipe, built, dataset = made(folder, beast=BEAST, it=task)
    untrained = derived_baselines(recipe, built, dataset, "test")["test/it/derived"]
    higher = TASKS[kind].known_metrics[metric]
    perfect = 1.0 if higher else 0.0
    assert untrained is not None
    assert abs(untrained - perfect) > 0.02
    group, t = built.model.places["beast"]
    knowing = dataset.rows.target[group][:, t].long()
    rows = dataset.rows.inputs
    network = built.model

    def logits_of_truth(x: torch.Tensor, present: Any = None) -> Any:
        at = [int((rows == row).all(1).nonzero()[0, 0]) for row in x]
        given = type(network).forward(network, x)
        given.groups[group][:, t] = 50 * torch.nn.functional.one_hot(knowing[at], 4).float()
        return given

    network.forward = logits_of_truth  # type: ignore[method-assign]
    assert derived_baselines(recipe, built, dataset, "test")["test/it/derived"] == pytest.approx(
        perfect, abs=1e-4
    )


def test_binary_and_ordinal_tasks_can_be_derived_from(folder: Path) -> None:
    grade = {"kind": "ordinal", "target": "grade"}
    upper = {"kind": "binary", "target": "grade", "metrics": ["accuracy"], "derived_from": "grade"}
    lower = {"kind": "multiclass", "target": "grade", "derived_from": "upper"}
    recipe, built, dataset = made(folder, grade=grade, upper=upper, lower=lower)
    values = derived_baselines(recipe, built, dataset, "test")
    assert set(values) == {"test/upper/derived", "test/lower/derived"}
    for task, of in (("upper", "grade"), ("lower", "upper")):
        p = probabilities(built, dataset, of)
        assert values[f"test/{task}/derived"] == pytest.approx(
            float((p.argmax(1) == truth(dataset, built, task)).mean())
        )


def test_the_trained_network_and_the_other_tasks_stay_as_they_are(folder: Path) -> None:
    fitted = {"fit_threshold": "f1", "temperature": True, "metrics": ["f1"]}
    recipe, built, dataset = made(folder, beast={**BEAST, "temperature": True}, large={**LARGE, **fitted})
    before = {name: value.clone() for name, value in built.model.state_dict().items()}
    buffers = {name: value.clone() for name, value in built.model.named_buffers()}
    own = evaluate(built.model, recipe.tasks, dataset, dataset.splits["test"], "test")
    built.model.train()
    derived_baselines(recipe, built, dataset, "test")
    assert built.model.training
    for name, value in built.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    for name, value in built.model.named_buffers():
        assert torch.equal(value, buffers[name]), name
    assert evaluate(built.model, recipe.tasks, dataset, dataset.splits["test"], "test") == own
    from mtl.evaluation.baseline import flat_network

    beside = flat_network(recipe, built.groups, dataset, 0).model
    x = dataset.rows.batch(dataset.splits["test"]).inputs
    built.model.eval()
    with torch.inference_mode():
        assert torch.equal(
            Deriving(built.model, beside, dataset.derived)(x)["beast"], built.model(x)["beast"]
        )


@pytest.mark.parametrize("name", [name for name in TASKS.names() if TASKS[name].one_class])
def test_logits_of_probabilities_give_them_back(name: str) -> None:
    spec = task_samples.example(name)
    target, outputs = task_samples.encoded(spec), task_samples.outputs_of(spec)
    module = task_samples.module_of(spec, spec.n_outputs(outputs), *[spec.constants(target, outputs)] * 2)
    rng = np.random.default_rng(0)
    p_BTC = torch.from_numpy(rng.dirichlet(np.ones(len(outputs)), (7, 2))).float()
    logits_BTO = module.logits_of(module.predicted_of(p_BTC))
    assert logits_BTO.shape == (7, 2, spec.n_outputs(outputs))
    torch.testing.assert_close(module.class_probabilities(logits_BTO), p_BTC)
    certain_BTC = torch.eye(len(outputs), dtype=torch.float32).unsqueeze(1).expand(-1, 2, -1)
    torch.testing.assert_close(
        module.class_probabilities(module.logits_of(module.predicted_of(certain_BTC))), certain_BTC
    )


def test_a_run_records_it_and_shows_it_last(folder: Path, capsys: Capture) -> None:
    made(folder, beast=BEAST, large=LARGE)
    done = called(capsys, "run", "r.yaml", "--out", "run")
    assert done.returncode == 0, done.stderr
    record = json.loads((folder / "run" / "run.json").read_text())
    value = record["baselines"]["test/large/derived"]
    assert set(record["baselines"]) == {
        *(f"test/{task}/{name}" for task in ("beast", "large") for name in ("constant", "linear")),
        "test/large/derived",
    }
    for shown in (done.stdout, called(capsys, "eval", "run").stdout):
        lines = shown.splitlines()
        head = next(i for i, line in enumerate(lines) if line.startswith("test"))
        assert lines[head].split()[-3:] == ["constant", "linear", "derived"]
        (large,) = [line for line in lines[head:] if line.startswith("large ")]
        assert large.split()[-1] == f"{value:.4f}"
        assert any(
            "derived: what the prediction of the task in derived_from reaches" in line for line in lines
        )

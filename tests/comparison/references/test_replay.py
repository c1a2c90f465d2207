"""Stored logits as a network: the same metrics to the bit, and kinds of task without a way back by name."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mtl.build import build
from mtl.comparison.references.replay import module_of_task, replayed
from mtl.comparison.references.scored import Predicted, scored
from mtl.errors import UserError
from mtl.evaluation.decisions import apply, fit_decisions
from mtl.evaluation.evaluate import evaluate, evaluation_mode
from mtl.model.tasks.kinds import YesNo
from mtl.task_groups import TaskGroup
from tests.comparison.references.shop import EVERY, made

SPLITS = ("test", "validation")


def test_the_logits_of_a_network_have_its_metrics_to_the_bit(shop: Path) -> None:
    tasks = {
        **EVERY,
        "other": {**EVERY["binary"], "fit_threshold": "f1", "temperature": True},
        "seldom": {"kind": "binary", "target": "seldom", "missing": "mask", "sample_weight": "share"},
    }
    recipe, dataset, groups = made(shop, tasks)
    network = build(recipe, dataset.header, dataset.learned)
    with torch.no_grad():
        for parameter in network.model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    with evaluation_mode(network.model), torch.inference_mode():
        logits = {
            split: dict(network.model(dataset.rows.inputs[torch.from_numpy(dataset.splits[split])]))
            for split in SPLITS
        }
    found, told = scored(recipe, groups, dataset, Predicted(logits))
    assert told == []
    apply(network, fit_decisions(recipe, network, dataset))
    for split in SPLITS:
        own = evaluate(network.model, recipe.tasks, dataset, dataset.splits[split], split)
        assert own == {name: value for name, value in found.values.items() if name.startswith(f"{split}/")}
        assert sum(value is not None for value in own.values()) > 20


def test_rows_keep_their_order_and_splits_their_names(shop: Path) -> None:
    recipe, dataset, groups = made(shop, {"a": EVERY["binary"], "b": EVERY["ordinal"]})
    n = {split: len(dataset.splits[split]) for split in SPLITS}
    logits = {
        split: {"a": torch.randn(n[split], 1), "b": torch.randn(n[split], 3)}
        for split in ("test", "validation")
    }
    built, rows = replayed(groups, dataset, logits)
    assert {split: len(own) for split, own in rows.splits.items()} == n
    for split, own in rows.splits.items():
        batch = rows.rows.batch(own)
        found = built.model(batch.inputs)
        for task in recipe.tasks:
            assert torch.equal(found[task], logits[split][task])
        before = dataset.rows.targets(dataset.splits[split])
        assert all(torch.equal(batch.target[group], before.target[group]) for group in before.target)


def test_an_absent_task_has_no_metrics(shop: Path) -> None:
    recipe, dataset, groups = made(shop, {"a": EVERY["binary"], "b": EVERY["binary"]})
    predicted = Predicted({"test": {"b": torch.randn(len(dataset.splits["test"]), 1)}})
    found, _ = scored(recipe, groups, dataset, predicted)
    assert {name.split("/")[1] for name in found.values} == {"b"}


# --- kinds that have no way back ---


class Silent(YesNo):
    """A kind that says nothing of the way back."""

    answer = None


class Unwilling(YesNo):
    """A kind that names another prediction than it gives."""

    answer = "class"


class Twisted(YesNo):
    """A kind whose way back leads elsewhere."""

    def logits_of(self, predicted: Mapping[str, Tensor]) -> Tensor:
        return -super().logits_of(predicted)


class Flattened(YesNo):
    """A kind whose way back loses an axis."""

    def logits_of(self, predicted: Mapping[str, Tensor]) -> Tensor:
        return super().logits_of(predicted)[:, 0]


REFUSED = {
    Silent: "tasks.a: kind 'binary' has no way back from predictions to logits; compare without reference models, or "
    "give Silent `answer` and `logits_of`",
    Unwilling: "Unwilling.answer is 'class', which `predict` does not give",
    Twisted: "Twisted.logits_of gives logits with another 'yes' than was given",
    Flattened: "Flattened.logits_of gives logits of shape (7, 1), not (B, T, O) = (7, 1, 1)",
}


def group_of(shop: Path, kind: type[YesNo], monkeypatch: pytest.MonkeyPatch) -> TaskGroup:
    _, _, (group,) = made(shop, {"a": EVERY["binary"]})
    monkeypatch.setattr(type(group.spec), "build", lambda _, head, constants: kind(head, constants))
    return replace(group)


@pytest.mark.parametrize("kind", REFUSED)
def test_a_kind_without_a_way_back_is_refused_by_name(
    kind: type[YesNo], shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError) as caught:
        module_of_task(group_of(shop, kind, monkeypatch), 0)
    assert str(caught.value) == REFUSED[kind]


def test_the_kinds_of_ours_have_a_way_back(shop: Path) -> None:
    _, _, groups = made(shop)
    answers = {module_of_task(group, t).answer for group in groups for t in range(len(group.tasks))}
    assert answers == {"class", "yes", "there", "value"}

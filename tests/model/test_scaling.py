"""One kernel per layer, however many towers and tasks: operations are counted."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mtl.build import Built
from mtl.model.layers import GroupedLinear
from mtl.model.stitch import FEW
from mtl.model.towers import SeparateTowers
from mtl.recipe.keys.recipe import Recipe

Toy = Callable[..., tuple[Recipe, Built]]
SHAPES = {"conv": (2, 8, 8), "linear": (9,)}


class Count(TorchDispatchMode):
    """Counts what reaches the dispatcher, views and all."""

    def __init__(self) -> None:
        super().__init__()
        self.ops: Counter[str] = Counter()

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.ops[str(op)] += 1
        return op(*args, **kwargs or {})


def ops_of(built: Built, x: torch.Tensor) -> Counter[str]:
    """The operations of one training step but for the optimizer's."""
    modules = built.model.modules_of_tasks()
    metrics = {name: module.metric(frozenset()) for name, module in modules.items()}  # once an epoch
    with Count() as count:
        logits = built.model(x)
        for name, module in modules.items():
            target = torch.zeros(len(x), len(module.tasks), dtype=torch.long)
            present = torch.ones_like(target, dtype=torch.bool)
            module.loss(logits.groups[name], target, present.float())[0].sum().backward()
            metrics[name].update(logits.groups[name].detach(), target, present)
    return count.ops


@pytest.mark.parametrize("granularity", ["scalar", "channel", "dense"])
@pytest.mark.parametrize("body", SHAPES)
def test_operations_do_not_grow_with_towers(toy: Toy, body: str, granularity: str) -> None:
    if (body, granularity) == ("conv", "dense"):
        sharing = {"kind": "cross_stitch", "granularity": granularity, "after": ("fc3",)}
    else:
        sharing = {"kind": "cross_stitch", "granularity": granularity}
    x = torch.randn(4, *SHAPES[body])
    counts = {}
    few = FEW["channel"] if granularity == "channel" else 0  # so many are mixed by a sum, term by term
    first, second = few + 2, few + 3
    for n_towers in (first, second, 64):
        names = [f"t{2 * k}" for k in range(n_towers)]  # all of three classes: one task group
        _, built = toy(body, names, sharing=sharing, head={"dropout": 0.1, "norm": True})
        assert len(built.groups) == 1
        counts[n_towers] = ops_of(built, x)
    assert counts[first] == counts[second] == counts[64]
    assert sum(counts[first].values()) > 20


@pytest.mark.parametrize("towers", ["one", "even", "uneven"])
def test_operations_do_not_grow_with_tasks_of_a_tower(toy: Toy, towers: str) -> None:
    counts = []
    for n_tasks in (4, 64):
        names = [f"t{2 * t}" for t in range(n_tasks)]
        right = names[1::2] if towers == "even" else names[-1:]
        plan: Any = {"left": tuple(name for name in names if name not in right), "right": tuple(right)}
        plan = "one" if towers == "one" else plan
        _, built = toy("linear", names, towers=plan)
        counts.append(ops_of(built, torch.randn(4, 9)))
    assert counts[0] == counts[1]


def test_the_count_sees_towers_that_are_computed_one_by_one() -> None:
    counts = []
    for n_towers in (2, 4):
        separate = SeparateTowers([GroupedLinear(1, 3, 2) for _ in range(n_towers)], shared_input=False)
        for parameter in separate.parameters():
            nn.init.normal_(parameter)
        with Count() as count:
            separate(torch.randn(2, 3 * n_towers))
        counts.append(sum(count.ops.values()))
    assert counts[1] >= counts[0] + 2

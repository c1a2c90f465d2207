"""The module of a task kind without a recipe around it."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mtl.model.heads import GroupedHead
from mtl.model.task_module import TaskModule
from mtl.recipe.specs import TaskSpec


def module_of(
    spec: TaskSpec,
    outputs: Sequence[str],
    tasks: Sequence[str] = ("t0",),
    constants: Mapping[str, tuple[float, ...]] | None = None,
) -> TaskModule:
    """The module of T tasks with the same outputs and constants, on a head that reads one feature for each task.

    Args:
        spec: the settings of all tasks.
        outputs: the names of what each predicts.
        tasks: their names.
        constants: the numbers of each task; those that are fitted after training have their first value.
    """
    n_tasks = len(tasks)
    head = GroupedHead(tasks, range(n_tasks), n_tasks, 1, spec.n_outputs(outputs))
    numbers = {name: (value,) for name, value in spec.fitted.items()} | dict(constants or {})
    stacked: dict[str, Tensor] = {
        name: torch.tensor([values] * n_tasks).squeeze(-1) for name, values in numbers.items()
    }
    return spec.build(head, stacked)

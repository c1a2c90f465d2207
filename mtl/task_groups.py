"""Groups the tasks that are computed together, and names the outputs of each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mtl.contracts import check_outputs
from mtl.data.learned import Constants, Learned
from mtl.data.types import Header
from mtl.errors import UserError, gathered, quoted, raise_all
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.specs import TaskSpec

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TaskGroup:
    """Tasks that are computed together: one grouped head, one loss, one metric update.

    Args:
        name: the name of their head in the model.
        tasks: the T tasks.
        spec: the settings of one of them; all tasks agree in the settings of head, loss and metrics.
        outputs: for each task, the names of its outputs.
        towers: for each task, the name of its tower.
        constants: numbers that losses, metrics and predictions need, (T,) or (T, ...); their module keeps them.
    """

    name: str
    tasks: tuple[str, ...]
    spec: TaskSpec
    outputs: tuple[tuple[str, ...], ...]
    towers: tuple[str, ...]
    constants: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def n_outputs(self) -> int:
        """O, the outputs per task."""
        return self.spec.n_outputs(self.outputs[0])


def known_outputs(recipe: Recipe, header: Header) -> dict[str, tuple[str, ...] | None]:
    """Task -> the names of its outputs, or None where the header does not tell them.

    Raises:
        UserError: a task does not fit the data's header; the faults of all tasks come together.
    """
    found: dict[str, tuple[str, ...] | None] = {}
    faults: list[UserError] = []
    inputs = header.layout
    read = {*inputs.numeric, *inputs.vectors, *inputs.categorical} if inputs is not None else set()
    for task, spec in recipe.tasks.items():
        with gathered(faults), recipe.at("tasks", task):
            found[task] = check_outputs(spec, spec.outputs(header.of(spec.source)))
            leak = [column for column in spec.target_columns() if column in read]
            if leak:
                what = f"column {quoted(leak[0])} is an input too: its label would be read off it"
                raise UserError("", what, path=("target",))
    raise_all(faults)
    return found


def task_groups(recipe: Recipe, learned: Learned) -> tuple[TaskGroup, ...]:
    """The tasks of a recipe in groups, in the order of each group's first task."""
    towers = list(recipe.towers)
    tower_of = {task: k for k, tasks in enumerate(recipe.towers.values()) for task in tasks}
    gathered: dict[tuple[object, ...], list[str]] = {}
    for task, spec in recipe.tasks.items():
        key = spec.group(spec.n_outputs(learned.outputs[task]))
        computed_by = (type(spec).build, *spec.fitted.items())  # a subclass may have its own
        gathered.setdefault((*key, *computed_by, spec.head), []).append(task)
    groups: list[TaskGroup] = []
    for group_key, tasks in gathered.items():
        tasks.sort(
            key=lambda task: tower_of[task]
        )  # tasks of one tower lie side by side, so that heads copy no reading
        spec = recipe.tasks[tasks[0]]
        stem = f"{group_key[0]}_{spec.n_outputs(learned.outputs[tasks[0]])}".replace(".", "_")
        same = sum(group.name.startswith(stem) for group in groups)
        constants = [learned.constants.get(task, {}) for task in tasks]
        groups.append(
            TaskGroup(
                name=f"{stem}_{same + 1}" if same else stem,
                tasks=tuple(tasks),
                spec=spec,
                outputs=tuple(learned.outputs[task] for task in tasks),
                towers=tuple(towers[tower_of[task]] for task in tasks),
                constants={
                    name: _stacked(name, constants, spec.fitted)
                    for name in dict.fromkeys((*spec.fitted, *(n for c in constants for n in c)))
                },
            )
        )
    return tuple(groups)


def _stacked(name: str, constants: Sequence[Constants], fitted: Mapping[str, float]) -> Tensor:
    """(T,) or (T, ...) one number or row per task; a number that is not fitted yet has its initial value."""
    import torch  # here, because errors about columns come before torch is imported

    rows = [c[name] if name in c else (fitted[name],) for c in constants]
    stacked = torch.tensor(rows, dtype=torch.float32)
    return stacked[:, 0] if len(rows[0]) == 1 else stacked

"""Encodes the labels of one task, checks them against the recipe, and reports what is unusual about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtl.console import counted
from mtl.contracts import check_targets
from mtl.data import room
from mtl.data.columns.labels import narrow
from mtl.data.learned import Constants
from mtl.data.types import Array, Header, Labels, Mask, Rows
from mtl.dataset.controls.fraction import thinned
from mtl.dataset.join import Joined
from mtl.errors import UserError, gathered, quoted, raise_all
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.specs import TaskSpec

RARE = 1000
"""A notice is given if the most frequent class has this many times the rows of the rarest."""
MANY_FRACTIONS = 20
"""More classes than these, if they are fractions, look like a quantity; half stars from 0 to 5 are 11 classes."""
STRAY = 0.01
"""A class of a smaller part of the rows is taken for a slip; 0.5 between 0 and 1 in every third row is a class."""
ENOUGH_ROWS = 50
"""With this many training rows, classes of a single row each look like an id."""


@dataclass(frozen=True)
class TaskLabels:
    """Targets (n,) or (n, O), whether each is present, weights (n,) if any, and what was learned from them."""

    outputs: tuple[str, ...]
    targets: Array
    present: Mask
    weight: npt.NDArray[np.float32] | None
    constants: Constants
    notices: list[str]


def read_tasks(
    recipe: Recipe,
    outputs: Mapping[str, tuple[str, ...] | None],
    joined: Joined,
    header: Header,
    splits: Mapping[str, Rows],
) -> dict[str, TaskLabels]:
    """Task -> its labels, checked against the recipe.

    Raises:
        UserError: as `read_task`; the faults of all tasks come together.
    """
    tasks: dict[str, TaskLabels] = {}
    faults: list[UserError] = []
    data, on_unlabelled = recipe.data, recipe.data.split.on_unlabelled
    seed = recipe.seeds.split if data.label_seed is None else data.label_seed
    fractions = {task: (part, seed) for task, part in (data.label_fraction or {}).items()}
    for task, spec in recipe.tasks.items():
        with gathered(faults), recipe.at("tasks", task):
            given = outputs[task], joined, header, splits, on_unlabelled, fractions.get(task)
            tasks[task] = read_task(task, spec, *given)
    raise_all(faults)
    return tasks


def read_task(
    task: str,
    spec: TaskSpec,
    outputs: tuple[str, ...] | None,
    joined: Joined,
    header: Header,
    splits: Mapping[str, Rows],
    on_unlabelled: str,
    fraction: tuple[float, int] | None = None,
) -> TaskLabels:
    """The labels of one task, checked against the recipe; `on_unlabelled` is the key of that name.

    `fraction` is the part of the labels that stays, and the seed of the choice; by default all stay.

    Raises:
        UserError: a label has no class, is missing although the recipe does not allow it, or a split has no labels.
    """
    labels = joined.labels(spec.target_columns(), spec.source, header)
    there = labels.any_present()
    _check_missing(spec, joined, labels, splits)
    _check_labelled(task, there, splits, on_unlabelled)
    if outputs is None:
        outputs = spec.found_outputs(labels)
    targets = narrow(check_targets(spec, spec.encode(labels, outputs), len(labels.values)))
    _require_no_stray_fraction(spec, outputs, targets, joined)
    thinning: list[str] = []
    if fraction is not None:  # after the check of missing labels, since these are not missing in the data
        there, said = thinned(task, targets, spec.reads != "numbers", there, splits, *fraction)
        thinning.append(said)
    train = splits["train"][there[splits["train"]]]
    notices = [*thinning, *_notices(task, spec, outputs, targets, there, splits)]
    weight = None
    if spec.sample_weight is not None:
        weight = sample_weights(spec.sample_weight, joined, labelled(splits, there))
        if not weight[train].any():
            what = f"column {quoted(spec.sample_weight)} is 0 in every labelled row of train"
            raise UserError("", what, path=("sample_weight",))
    constants = spec.constants(targets[train], outputs)
    return TaskLabels(outputs, room.kept(targets), room.kept(there), weight, constants, notices)


def labelled(splits: Mapping[str, Rows], there: Mask) -> Rows:
    """The rows of all splits that have a label."""
    return np.concatenate([rows[there[rows]] for rows in splits.values()])


def _check_missing(spec: TaskSpec, joined: Joined, labels: Labels, splits: Mapping[str, Rows]) -> None:
    if spec.missing == "error" and not labels.present.all():
        whole = np.asarray(labels.present.all(axis=tuple(range(1, labels.present.ndim))))
        lacking = np.concatenate([rows[~whole[rows]] for rows in splits.values()])
        if lacking.size:
            column = ", ".join(map(quoted, spec.target_columns()[:3]))
            more = f", and {lacking.size - 1} more rows like it" if lacking.size > 1 else ""
            raise UserError(
                joined.place(int(lacking.min())),
                f"no label in column {column}{more}",
                "set `missing: mask` to leave such rows out of this task",
                path=("target",),
            )


def _check_labelled(task: str, there: Mask, splits: Mapping[str, Rows], on_unlabelled: str) -> None:
    """Refuse a split without labels of a task; with `warn` only train needs one."""
    for name, rows in splits.items():
        if not there[rows].any() and (name == "train" or on_unlabelled == "error"):
            what = f"task {quoted(task)} has no labels in split {quoted(name)}"
            todo = "split by data.split.stratify: all, or set data.split.on_unlabelled: warn"
            raise UserError("", what, "" if name == "train" else todo)


def sample_weights(column: str, joined: Joined, used: Rows) -> npt.NDArray[np.float32]:
    """(n,) the weights of rows, from a column of the data; only the weights of `used` rows are checked.

    Raises:
        UserError: a weight is missing, negative or too large; the message names the first such row.
    """
    values, _ = joined.extra(column)
    weights = np.asarray(values, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        single = weights.astype(np.float32)
    wrong = used[~((weights[used] >= 0) & (single[used] < np.inf))]
    if wrong.size:
        row = int(wrong.min())
        raise UserError(
            joined.place(row), f"the weight in column {quoted(column)} is {weights[row]:g}; it must be 0 or more",
            path=("sample_weight",),
        )  # fmt: skip
    return single


def _notices(
    task: str, spec: TaskSpec, outputs: Sequence[str], targets: Array, there: Mask, splits: Mapping[str, Rows]
) -> list[str]:
    """Unusual facts about the labels of one task, one line each."""
    rows = {name: part[there[part]] for name, part in splits.items()}
    if spec.reads == "numbers":
        values = targets[rows["train"]]
        if values.min() < values.max():
            return []
        return [f"task {quoted(task)}: every label of train is {values[0]:g}; r2 is undefined"]
    if targets.ndim > 1:
        return _label_notices(task, outputs, targets[rows["train"]])
    counts = {name: np.bincount(targets[part], minlength=len(outputs)) for name, part in rows.items()}
    train = counts["train"]
    if (train > 0).sum() < 2:
        raise UserError("", f"task {quoted(task)} has a single class in train: nothing to learn")
    notices = _odd_classes(task, outputs, train)
    absent = [name for name, count in zip(outputs, train, strict=True) if count == 0]
    if absent:
        elsewhere = sum(int(c[train == 0].sum()) for name, c in counts.items() if name != "train")
        what = f"task {quoted(task)}: no row of train has {', '.join(map(quoted, absent[:5]))}"
        what += (
            f" ({counted(elsewhere, 'row of other splits does', 'rows of other splits do')})"
            if elsewhere
            else ""
        )
        if spec.strict_classes:
            raise UserError("", what, "drop strict_classes, or split otherwise", path=("strict_classes",))
        notices.append(what)
    rarest, most = int(train[train > 0].min()), int(train.max())
    if most >= RARE * rarest:
        name = outputs[int(np.flatnonzero(train == rarest)[0])]
        few = counted(rarest, "row of train is", "rows of train are")
        notices.append(
            f"task {quoted(task)}: {few} {quoted(name)}, {most:,} are "
            f"{quoted(outputs[int(train.argmax())])}; accuracy says little here, look at average_precision or macro_f1"
        )
    return notices


def _odd_classes(task: str, outputs: Sequence[str], train: Array) -> list[str]:
    """Notices about classes that look like no classes; `train` holds the number of rows of each class."""
    called, notices = f"task {quoted(task)}", []
    alike: dict[str, str] = {}
    for name in outputs:
        first = alike.setdefault(" ".join(name.split()).casefold(), name)
        if first != name:
            notices.append(
                f"{called}: classes {quoted(first)} and {quoted(name)} differ in case or spaces only"
            )
            break
    if len(outputs) > MANY_FRACTIONS and _are_fractions(outputs):
        notices.append(
            f"{called}: its {len(outputs)} classes are numbers such as {outputs[0]}; kind: regression is for quantities"
        )
    n_rows, once = int(train.sum()), int((train == 1).sum())
    if n_rows >= ENOUGH_ROWS and 2 * once > n_rows:
        notices.append(
            f"{called}: {once:,} of {n_rows:,} rows of train have a class of their own; is it an id?"
        )
    return notices


def _require_no_stray_fraction(
    spec: TaskSpec, outputs: Sequence[str], targets: Array, joined: Joined
) -> None:
    """Refuse a rare fraction among whole classes, as 3.7 among 0 to 4, if the recipe does not name the classes.

    Raises:
        UserError: one class is a fraction, in one row or one of a hundred, and at least two are whole numbers.
    """
    named = any(getattr(spec, key, None) for key in ("groups", "order")) or isinstance(
        getattr(spec, "classes", None), tuple
    )
    if named or not spec.one_class or len(outputs) < 3 or not _are_fractions(outputs):
        return
    fractions = [i for i, name in enumerate(outputs) if not float(name).is_integer()]
    rows = np.flatnonzero(targets == fractions[0])
    if len(fractions) > 1 or not 0 < len(rows) <= max(1, len(targets) * STRAY):
        return
    odd = outputs[fractions[0]]
    whole = [name for name in outputs if name != odd]
    shown = ", ".join(whole[:5]) + (", ..." if len(whole) > 5 else "")
    what = f"{odd} in column {quoted(spec.target)} is a fraction, and all other classes are whole: {shown}"
    raise UserError(
        joined.place(int(rows[0])), what, "correct it, or list the names in `classes`", path=("target",)
    )


def _are_fractions(names: Sequence[str]) -> bool:
    """Whether every name is a number, and at least one is not whole."""
    try:
        numbers = [float(name) for name in names]
    except (ValueError, OverflowError):
        return False
    return any(not number.is_integer() for number in numbers)


def _label_notices(task: str, outputs: Sequence[str], targets: Array) -> list[str]:
    """Notices about labels that are all 0 or all 1 in train; -1 in targets means unknown."""
    notices = []
    for value, said in ((1, "no row of train has"), (0, "every row of train has")):
        lacking = ~(targets == value).any(axis=0)
        names = [quoted(name) for name, there in zip(outputs, lacking.tolist(), strict=True) if there]
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            notices.append(f"task {quoted(task)}: {said} {', '.join(names[:5])}{more}")
    return notices

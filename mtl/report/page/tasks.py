"""The figures and the tables of one task of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mtl.report.charts import curves, outcomes
from mtl.report.charts.marks import Figure
from mtl.report.curves import abscissa
from mtl.report.page.facts import Facts, curve_metrics
from mtl.runs.results.details import TaskDetails

MOST_OPEN = 6
"""Most tasks whose figures stand open; of more tasks all are folded."""
MOST_CLASSES = 20
"""Most classes of a table that is not folded."""


@dataclass(frozen=True)
class Confused:
    """Two classes that the network confuses often."""

    true: str
    predicted: str
    rows: float


@dataclass(frozen=True)
class Section:
    """What is told of one task below its result.

    Args:
        outputs: the names of its classes or labels.
        classes: for each class or label: rows, precision, recall, F1.
        confused: the most frequent confusions, where there are too many classes for a matrix.
        things: what its outputs are, `classes` or `labels`.
        note: which step the result is of, and why there are no figures of test rows; or an empty text.
    """

    task: str
    figures: Sequence[Figure]
    outputs: Sequence[str]
    classes: Sequence[tuple[str, Sequence[float | None]]]
    confused: Sequence[Confused]
    note: str
    things: str
    folds_classes: bool


def sections_of(facts: Facts) -> list[Section]:
    """A section for each task, in the order of the recipe."""
    return [_section(facts, task) for task in facts.headlines]


def _section(facts: Facts, task: str) -> Section:
    details, names = facts.details.get(task), list(facts.record.classes.get(task, []))
    figures, note = list(_learning(facts, task)), _own_step(facts, task)
    classes: list[tuple[str, Sequence[float | None]]] = []
    confused: list[Confused] = []
    if details is not None:
        outputs = _outputs(details, names)
        figures += _of_test_rows(details, outputs, facts.headlines[task].unit)
        table = zip(details.support, details.precision, details.recall, details.f1, strict=False)
        classes = [(name, row) for name, row in zip(outputs, table, strict=False)]
        confused = [
            Confused(outputs[int(true)], outputs[int(predicted)], rows)
            for true, predicted, rows in details.confusions or ()
            if max(true, predicted) < len(outputs)
        ]
    elif facts.is_finished:
        none = "There is no picture of its test rows: it has no test labels, or its kind tells no counts."
        note = f"{note} {none}".strip()
    things = "labels" if details is not None and details.form == "labels" else "classes"
    return Section(task, figures, names, classes, confused, note, things, len(classes) > MOST_CLASSES)


def _own_step(facts: Facts, task: str) -> str:
    """What a reader must know if the result of a task is of other weights than the run's."""
    own, chosen = facts.task_results.get(task), facts.record.selected
    if own is None or chosen is None or own.step == chosen.step:
        return ""
    return f"Its result is that of step {own.step:,}, which validation chose for it."


def _outputs(details: TaskDetails, names: Sequence[str]) -> list[str]:
    """The names of the classes or labels that details count; a yes-or-no task has one output and two answers."""
    if details.form == "yes_or_no":
        return list(names) if len(names) == 2 else ["no", "yes"]
    return [*names, *(f"class {k}" for k in range(len(names), len(details.support)))]


def _learning(facts: Facts, task: str) -> Iterator[Figure]:
    place = abscissa(facts.rows)
    chosen = facts.selected(task)
    selected = None if chosen is None else float(chosen[0] if place == "step" else chosen[1])
    several = {
        split: [row for row in facts.rows if row["split"] == split]
        for split in ("train", "validation", "test")
    }
    for metric in curve_metrics(facts, task):
        lines = {
            split: [(row[place], row[key]) for row in rows if row.get(key) is not None]
            for split, rows in several.items()
            if (key := f"{split}/{task}/{metric}")
        }
        lines = {split: line for split, line in lines.items() if line}
        if lines and max(map(len, lines.values())) > 1:
            yield curves.learning_curve(lines, metric.replace("_", " "), place, selected)


def _of_test_rows(details: TaskDetails, outputs: Sequence[str], unit: str) -> Iterator[Figure]:
    if details.confusion is not None and len(details.confusion) == len(outputs):
        yield outcomes.confusion(details.confusion, outputs)
    if details.calibration:
        yield outcomes.reliability(details.calibration)
    if any(details.curves):
        total = sum(details.support)
        if details.form == "yes_or_no":
            shares = [details.support[1] / total]
            yield curves.precision_recall(details.curves, [""], shares)
        elif len(details.curves) == len(outputs):
            shares = [n / (total or 1) for n in details.support]
            yield curves.precision_recall(details.curves, outputs, shares)
    if details.groups:
        yield outcomes.predicted_beside_labels(details.groups, unit)
    if details.residuals is not None:
        yield outcomes.residual_histogram(details.residuals, unit)

"""The metrics that the labels of a split cannot define; labels do not change, so a run knows them before it trains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from mtl.data.types import Rows
from mtl.dataset.labels import TaskLabels
from mtl.errors import quoted
from mtl.recipe.specs import TaskSpec, mean_metric

Undefined = Mapping[str, Mapping[str, str]]
"""Task -> metric, or number that is fitted on validation -> why the labels of one split cannot define it."""

WEIGHTLESS = "no row with a positive weight"
SHOWN = 5
"""Most tasks that a notice names."""


def undefined_metrics(spec: TaskSpec, labels: TaskLabels, rows: Rows) -> dict[str, str]:
    """Metric of one task, `loss` among them -> why the labels of these rows cannot define it.

    A metric that depends on the predictions too, such as the precision of a model that never answers yes, may have no
    value although the labels define it.
    """
    there = rows[labels.present[rows]]
    if not len(there):
        return dict.fromkeys(("loss", *spec.known_metrics, *spec.fitted, "threshold"), "no label")
    weighs = np.ones(len(there), dtype=bool) if labels.weight is None else labels.weight[there] > 0
    counted = there[weighs] if spec.metrics_weighted else there
    if len(counted):
        found = dict(spec.undefined(labels.targets[counted], labels.constants))
    else:
        found = dict.fromkeys((*spec.known_metrics, *spec.fitted, "threshold"), WEIGHTLESS)
    if not (weighs & spec.weighs(labels.targets[there], labels.constants)).any():
        found["loss"] = WEIGHTLESS
    return found


def defined_tasks(tasks: Iterable[str], undefined: Undefined, metric: str) -> list[str]:
    """The tasks that have a metric, as far as their labels decide it; means over tasks are over these."""
    return [task for task in tasks if metric not in undefined.get(task, {})]


def notices_on(tasks: Mapping[str, TaskSpec], undefined: Mapping[str, Undefined]) -> Iterator[str]:
    """Yield a notice for all tasks of a split that lack the same metrics for the same reason; train has its own ones.

    Args:
        tasks: task -> its spec.
        undefined: split -> what its labels cannot define.
    """
    mean = mean_metric(tasks)
    for split in ("validation", "test"):
        alike: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[str]] = {}
        for task, reasons in undefined.get(split, {}).items():
            for reason in dict.fromkeys(reasons.values()):
                own = {name for name, why in reasons.items() if why == reason}
                metrics = tuple(name for name in (*tasks[task].metric_names, "loss") if name in own)
                fitted = tuple(
                    name for name in fitted_by(tasks[task]) if name in own and split == "validation"
                )
                if metrics or fitted:
                    alike.setdefault((reason, metrics, fitted), []).append(task)
        for (reason, metrics, fitted), names in alike.items():
            yield _notice(split, names, reason, metrics, fitted, mean in metrics)


def fitted_by(spec: TaskSpec) -> tuple[str, ...]:
    """The numbers that a task asks to fit on validation: `temperature`, `threshold`, both or none."""
    asked = {"temperature": "temperature", "threshold": "fit_threshold"}
    return tuple(name for name, key in asked.items() if getattr(spec, key, None))


def _notice(
    split: str,
    tasks: list[str],
    reason: str,
    metrics: tuple[str, ...],
    fitted: tuple[str, ...],
    in_mean: bool,
) -> str:
    one = len(tasks) == 1
    more = f" and {len(tasks) - SHOWN} more" if len(tasks) > SHOWN else ""
    text = f"{'task' if one else 'tasks'} {', '.join(map(quoted, tasks[:SHOWN]))}{more} "
    text += f"{'has' if one else 'have'} {reason} in {split}"
    said = []
    if metrics:
        said.append(f"{_listed(metrics)} {'is' if len(metrics) == 1 else 'are'} undefined there")
    if in_mean:
        said.append(f"means over tasks leave {'it' if one else 'them'} out")
    if fitted:
        said.append(f"no {' and no '.join(fitted)} is fitted")
    return f"{text}: {', and '.join(said)}"


def _listed(names: tuple[str, ...]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]

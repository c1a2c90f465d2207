"""Numbers and names that are learned from the training rows before training; the shape of a model depends on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl.data.types import Header, Layout

Float32 = npt.NDArray[np.float32]

Constants = Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Learned:
    """Everything that is learned from the training rows before training.

    Args:
        outputs: task -> the names of its outputs.
        constants: task -> numbers that its loss, metrics and predictions need.
        mean, std: of the training inputs, or None for inputs that are not scaled.
        layout: the layout of a table's rows, with the values of its categories; None for other inputs.
        fill: the number that replaces each missing number of a table.
        indicators: positions of the numbers with a 0/1 column that says whether they were missing.
    """

    outputs: Mapping[str, tuple[str, ...]]
    constants: Mapping[str, Constants] = field(default_factory=dict)
    mean: Float32 | None = None
    std: Float32 | None = None
    layout: Layout | None = None
    fill: Float32 | None = None
    indicators: tuple[int, ...] = ()

    def record(self, header: Header) -> dict[str, Any]:
        """The plain values for run.json; mean, std and fill are left out, because the model's file holds them."""
        return {
            "input_shape": list(header.input_shape),
            "outputs": {task: list(names) for task, names in self.outputs.items()},
            "constants": {task: {k: list(v) for k, v in c.items()} for task, c in self.constants.items()},
            "scaled": self.mean is not None,
            "scale_shape": list(self.mean.shape) if self.mean is not None else [],
            "layout": None if self.layout is None else asdict(self.layout),
            "indicators": list(self.indicators),
        }

    def decided(self, constants: Mapping[str, Constants]) -> Learned:
        """A copy with further constants of some tasks, such as a threshold."""
        merged = {task: {**self.constants.get(task, {}), **constants.get(task, {})} for task in self.outputs}
        return replace(self, constants=merged)


def from_record(record: Mapping[str, Any]) -> tuple[Header, Learned]:
    """The header and what was learned, out of a record; numbers that the model's file holds are zeros and ones."""
    layout = _layout(record["layout"]) if record["layout"] is not None else None
    shape = tuple(record["scale_shape"])
    scaled = bool(record["scaled"])
    learned = Learned(
        outputs={task: tuple(names) for task, names in record["outputs"].items()},
        constants={t: {k: tuple(v) for k, v in c.items()} for t, c in record["constants"].items()},
        mean=np.zeros(shape, np.float32) if scaled else None,
        std=np.ones(shape, np.float32) if scaled else None,
        layout=layout,
        fill=np.zeros(shape, np.float32) if layout is not None else None,
        indicators=tuple(record["indicators"]),
    )
    return Header(tuple(record["input_shape"]), {}, layout=layout), learned


def _layout(values: Mapping[str, Any]) -> Layout:
    plain = dict(values)
    plain["values"] = {name: tuple(known) for name, known in plain["values"].items()}
    for key in ("numeric", "dates", "categorical"):
        plain[key] = tuple(plain[key])
    return Layout(**plain)

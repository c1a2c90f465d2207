"""What a program that reads an exported file has to know: the inputs, the outputs, and the meaning of their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mtl import __version__
from mtl.inference.load import Trained


def describe(model: Trained, outputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """The description of an exported network, as plain values for JSON.

    Args:
        model: the run.
        outputs: name of an output -> its values for a few rows.
    """
    layout, record = model.learned.layout, model.folder.record
    inputs: dict[str, Any] = {
        "name": "inputs",
        "type": "float32",
        "shape": ["batch", *model.header.input_shape],
    }
    if layout is not None:
        inputs["columns"] = [layout.numeric_name(i) for i in range(layout.n_numeric)] + list(
            layout.categorical
        )
        inputs["codes"] = {
            name: {value: code for code, value in enumerate(layout.values[name], 1)}
            for name in layout.categorical
        }
        inputs["missing"] = "not a number (NaN)" if layout.missing != "error" else "not allowed"
        inputs["unknown category"] = 0
    return {
        "made_by": f"mtl {__version__}",
        "recipe": record.name,
        "run": record.id,
        "description": record.description,
        "inputs": inputs,
        "outputs": {
            name: {"type": str(values.dtype)[6:], "shape": ["batch", *values.shape[1:]]}
            for name, values in outputs.items()
        },
        "tasks": {task: _task(model, task) for task in model.recipe.tasks},
    }


def _task(model: Trained, task: str) -> dict[str, Any]:
    """What the outputs of one task mean; the classes are in the order of their numbers and of probabilities."""
    spec = model.recipe.tasks[task]
    found: dict[str, Any] = {"kind": spec.kind}
    if spec.reads == "numbers":
        found["unit"] = spec.label_unit or "as in the data"
    else:
        found["classes"] = list(model.learned.outputs[task])
    return found

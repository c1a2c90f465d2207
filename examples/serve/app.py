"""Serves a network that `mtl export RUN --format onnx` wrote; it needs neither mtl nor torch.

pip install onnxruntime fastapi uvicorn
MODEL=model.onnx uvicorn app:app --port 8000
curl localhost:8000/predict -H 'content-type: application/json' -d '{"rows": [{"age": 31, "city": "Bern"}]}'
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import onnxruntime
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

session = onnxruntime.InferenceSession(
    os.environ.get("MODEL", "model.onnx"), providers=["CPUExecutionProvider"]
)
described = json.loads(session.get_modelmeta().custom_metadata_map["mtl"])
inputs, tasks = described["inputs"], described["tasks"]
names = [output.name for output in session.get_outputs()]
app = FastAPI(title=described["recipe"], description=described["description"])


class Request(BaseModel):
    """Rows of a table, as mappings of column to value, or arrays of numbers; at most 10,000."""

    rows: list[dict[str, float | str | None]] | list[list[Any]] = Field(min_length=1, max_length=10_000)


@app.get("/describe")
def describe() -> dict[str, Any]:
    """What goes in and what comes out."""
    return dict(described)


@app.post("/predict")
def predict(request: Request) -> list[dict[str, Any]]:
    """For each row and task the answer, and the probabilities of its classes if there are any."""
    found = dict(zip(names, session.run(names, {"inputs": encoded(request.rows)}), strict=True))
    return [{task: answer(task, found, i) for task in tasks} for i in range(len(request.rows))]


def encoded(rows: list[Any]) -> np.ndarray:
    """The array that the network takes: columns in their order, categories as codes, missing numbers as NaN."""
    if "columns" not in inputs:
        values = np.array(rows, np.float32)
    else:
        values = np.array([[number(row, column) for column in inputs["columns"]] for row in rows], np.float32)
    if list(values.shape[1:]) != inputs["shape"][1:]:
        raise HTTPException(422, f"a row has the shape {list(values.shape[1:])}, not {inputs['shape'][1:]}")
    return values


def number(row: dict[str, Any], column: str) -> float:
    """The number that stands for a value of a row."""
    if column not in row:
        raise HTTPException(422, f"a row has no {column!r}; columns: {', '.join(inputs['columns'])}")
    value = row[column]
    if column in inputs["codes"]:
        return float(inputs["codes"][column].get(str(value), inputs["unknown category"]))
    if value is None and inputs["missing"] == "not allowed":
        raise HTTPException(422, f"{column!r} is missing, and no row of training lacked it")
    if isinstance(value, str):
        raise HTTPException(422, f"{column!r} is the text {value!r}, not a number")
    return float("nan") if value is None else float(value)


def answer(task: str, found: dict[str, np.ndarray], i: int) -> dict[str, Any]:
    """The answer of one task for row i, in the words of the data."""
    value, classes = found[task][i], tasks[task].get("classes")
    if classes is None:
        return {"value": float(value)}
    p = found[f"{task}_p"][i]
    if tasks[task]["kind"] == "multilabel":
        return {"value": [name for name, there in zip(classes, value, strict=True) if there],
                "p": dict(zip(classes, map(float, p), strict=True))}  # fmt: skip
    probabilities = {classes[1]: float(p)} if p.ndim == 0 else dict(zip(classes, map(float, p), strict=True))
    return {"value": classes[int(value)], "p": probabilities}

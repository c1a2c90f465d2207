"""Writes a run's network as a file that other programs run, and compares the file with the run."""

from __future__ import annotations

import json
import logging
import os
import secrets
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtl.errors import EnvironmentFault, UserError, quoted
from mtl.export.description import describe
from mtl.export.network import Network
from mtl.inference.load import Trained
from mtl.inference.rescore import own_data

INSTALL = "pip install 'mtl-recipes[onnx]'"
ROWS = 64
"""Rows by which a file is compared with the run."""
CLOSE = 1e-4
"""The most by which a probability, or a value in units of its size, may differ."""
MOST_BYTES = (2 << 30) - (64 << 20)
"""The weights that an ONNX file holds; protocol buffers end at 2 GB."""
KEY = "mtl"
"""The key of the description in both kinds of files."""

Run = Callable[[Tensor], Mapping[str, Any]]
"""Raw rows -> name of an output -> its values."""


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Args:
        path: the file.
        description: what is written into it.
        n_rows: the rows on which it gives what the run predicts.
        difference: the largest difference there.
        made_up_why: why no rows of the run's own data were taken; empty if they were.
    """

    path: Path
    description: dict[str, Any]
    n_rows: int
    difference: float
    made_up_why: str


def export(model: Trained, path: Path, kind: str) -> Exported:
    """Write the network of a run as `torch` (torch.export, .pt2) or `onnx`; the batch has any size.

    The file is read again and run before it takes its name.

    Args:
        model: the run, on the CPU.
        path: the file.
        kind: torch or onnx.

    Raises:
        UserError: a part cannot be exported, or the file gives other numbers than the run.
        EnvironmentFault: a package is missing, or the file cannot be written.
    """
    write, read = {"torch": (_write_torch, _read_torch), "onnx": (_write_onnx, _read_onnx)}[kind]
    network = Network(model.built, tuple(model.recipe.tasks)).eval()
    rows, why = _rows(model)
    with torch.inference_mode():
        expected = network(rows)
    described = describe(model, expected)
    temporary = path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
    try:
        with _plainly(kind):
            write(network, rows[:2], list(expected), json.dumps(described), temporary)
            found = read(temporary)(rows)
        difference = _difference(expected, found)
        os.replace(temporary, path)
    except OSError as error:
        raise EnvironmentFault(
            str(path), f"cannot write: {(error.strerror or str(error)).lower()}"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()
    return Exported(path, described, len(rows), difference, why)


@contextmanager
def _plainly(kind: str) -> Iterator[None]:
    """Turn what torch and ONNX raise on a part that they cannot export into one line.

    Raises:
        UserError: they raised something.
        EnvironmentFault: a package is missing.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except (UserError, OSError, MemoryError):
        raise
    except ImportError as error:
        raise EnvironmentFault("mtl", f"{error.name or 'onnx'} is not installed", INSTALL) from None
    except Exception as error:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        what = f"a part of this network cannot be exported to {kind}: {quoted(first.strip())}"
        raise UserError("", what, "--debug shows the traceback") from error


def _rows(model: Trained) -> tuple[Tensor, str]:
    """Raw rows: those of the run's training data, or made-up ones and why."""
    try:
        dataset = own_data(model, "train")
        return dataset.rows.batch(dataset.splits["train"][:ROWS]).inputs.float(), ""
    except UserError as error:
        return _made_up(model), error.errors[0].what


def _made_up(model: Trained) -> Tensor:
    """Rows of the right form: numbers around the mean of training, any category, some numbers missing."""
    draw, layout = np.random.default_rng(0), model.learned.layout
    rows = draw.standard_normal((ROWS, *model.header.input_shape)).astype(np.float32)
    if layout is not None:
        inputs: Any = model.built.model.inputs
        numbers = rows[:, : layout.n_numeric] * inputs.std.cpu().numpy() + inputs.mean.cpu().numpy()
        if layout.missing != "error":
            numbers[draw.random(numbers.shape) < 0.1] = np.nan
        codes = [draw.integers(0, 1 + len(layout.values[name]), ROWS) for name in layout.categorical]
        rows = np.column_stack([numbers, *codes]).astype(np.float32)
    return torch.from_numpy(rows)


def _difference(expected: Mapping[str, Tensor], found: Mapping[str, Any]) -> float:
    """The largest difference of two sets of outputs, relative to the size of values beyond 1.

    Answers that are no numbers, as classes, may differ in one row of fifty, where two probabilities are equal.

    Raises:
        UserError: it is more than `CLOSE`, or names or shapes differ.
    """
    largest = 0.0
    for name, values in expected.items():
        own, theirs = values.numpy(), np.asarray(found[name])
        if own.shape != theirs.shape:
            raise UserError("", f"output {quoted(name)} has shape {theirs.shape}, not {own.shape}")
        if not values.is_floating_point():
            difference, most = float((own != theirs).mean()), 1 / 50
            what = f"the file gives {quoted(name)} differently in {difference:.0%} of the rows"
        else:
            wide = own.astype(np.float64)
            far = np.abs(wide - theirs.astype(np.float64)) / np.maximum(1, np.abs(wide))
            difference, most = float(far.max(initial=0.0)), CLOSE
            largest = max(largest, difference)
            what = f"the file gives {quoted(name)} with a difference of {difference:.2g}, at most {CLOSE:g} is allowed"
        if not difference <= most:
            raise UserError("", what, "report it with the run's recipe; no file was written")
    return largest


def _program(network: Network, rows: Tensor) -> torch.export.ExportedProgram:
    with torch.no_grad():
        return torch.export.export(network, (rows,), dynamic_shapes=({0: torch.export.Dim("batch")},))


def _write_torch(network: Network, rows: Tensor, names: list[str], text: str, path: Path) -> None:
    torch.export.save(_program(network, rows), path, extra_files={f"{KEY}.json": text})


def _read_torch(path: Path) -> Run:
    module = torch.export.load(path).module()
    return lambda rows: module(rows)


def _write_onnx(network: Network, rows: Tensor, names: list[str], text: str, path: Path) -> None:
    import onnxscript  # noqa: F401

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells of torchvision's operators
    n_bytes = sum(value.nbytes for value in network.state_dict().values())
    if n_bytes > MOST_BYTES:
        raise UserError(
            "--format", f"an ONNX file holds 2 GB, and the weights take {n_bytes / 1e9:.1f}", "use torch"
        )
    made = torch.onnx.export(
        _program(network, rows), (), input_names=["inputs"], output_names=names, dynamo=True, verbose=False
    )
    assert made is not None
    made.model.metadata_props[KEY] = text
    made.save(path)


def _read_onnx(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(rows: Tensor) -> Mapping[str, Any]:
        return dict(zip(names, session.run(names, {"inputs": rows.numpy()}), strict=True))

    return run

"""A trainer's state becomes the files of a checkpoint, and back: safetensors and JSON, without pickle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import torch
from pydantic import Field, TypeAdapter, ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn

from mtl.errors import UserError, quoted
from mtl.evaluation.meter import Meter
from mtl.runs.checkpoint import SCHEMA_VERSION
from mtl.runs.disk import Content, read_plain
from mtl.runs.json_text import canonical_json, strict_json
from mtl.runs.tensor_files import TensorFile, read_shapes, read_tensors
from mtl.training.progress import Progress
from mtl.training.trainer import Trainer

POSITION = {"epoch": "epoch", "step_in_epoch": "step_in_epoch", "global_step": "step"}
"""Key in state.json -> attribute of `Progress`, for the three numbers of a position."""
SHOWN = 5
"""A message names at most this many tensors with the same fault."""
MODEL, OPTIMIZER, WEIGHTING, METER, STATE = (
    "model.safetensors",
    "optim.safetensors",
    "weighting.safetensors",
    "meter.safetensors",
    "state.json",
)


def capture(trainer: Trainer, offsets: Mapping[str, int]) -> dict[str, Content]:
    """File name -> content, for everything that the rest of the run depends on.

    Tensors are not copied, so no step may be taken before the files are written. Dropout draws and the order of rows
    are functions of (seed, position), so no generator state is saved. The measurements of an epoch under way go into
    `meter.safetensors`.

    Args:
        trainer: the trainer, between two steps.
        offsets: log file -> its length in bytes.
    """
    progress = asdict(trainer.progress)
    state = {
        "schema_version": SCHEMA_VERSION,
        "position": {key: progress.pop(name) for key, name in POSITION.items()},
        "progress": progress,
        "order_sha256": trainer.order_sha256(trainer.progress.epoch),
        "offsets": dict(offsets),
    }
    files: dict[str, Content] = {
        MODEL: TensorFile(trainer.built.model.state_dict()),
        OPTIMIZER: TensorFile(_optimizer_tensors(trainer.optimizer)),
        WEIGHTING: TensorFile(trainer.weighting.state_dict()),
        STATE: canonical_json(state),
    }
    if trainer.meter is not None:
        files[METER] = TensorFile(trainer.meter.state())
    return files


def restore(trainer: Trainer, files: Mapping[str, Path], allow_nonfinite: bool = False) -> dict[str, int]:
    """Restore a trainer from a checkpoint, and return the lengths of the log files at that time.

    All files are read and checked before the trainer changes.

    Args:
        trainer: a trainer of the same recipe.
        files: name -> the file, whose digest was verified.
        allow_nonfinite: accept infinite and NaN weights.

    Raises:
        UserError: the checkpoint is for another model, or holds infinite or NaN weights.
    """
    progress, offsets, order_sha256 = _read_state(files)
    weights = _weights(trainer.built.model, files)
    if not allow_nonfinite:
        require_finite(weights)
    moments = _moments(trainer, progress, _load(files, OPTIMIZER))
    weighting = _load(files, WEIGHTING)
    _require_same_tensors(WEIGHTING, weighting, trainer.weighting.state_dict())
    if order_sha256 != trainer.order_sha256(progress.epoch):
        raise UserError(STATE, "the order of rows is not the one that the run began with", "start a new run")
    meter = _meter(trainer, files) if METER in files else None
    _put(trainer.built.model, weights)
    trainer.weighting.load_state_dict(weighting)
    for group in trainer.optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            trainer.optimizer.state[parameter] = {
                key: _like(value, parameter) for key, value in moments[name].items()
            }
    trainer.progress, trainer.meter = progress, meter
    return offsets


def _read_state(files: Mapping[str, Path]) -> tuple[Progress, dict[str, int], str]:
    """The content of state.json: the progress, the lengths of the logs, and the digest of the order of rows.

    Raises:
        UserError: the file holds no such state; a good digest does not prove that a run wrote the file.
    """
    try:
        state = strict_json(read_plain(files[STATE]))
        if state["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"is of schema {state['schema_version']}")
        position = {name: state["position"][key] for key, name in POSITION.items()}
        progress = Progress(**position, **state["progress"])
        offsets, order_sha256 = dict(state["offsets"]), state["order_sha256"]
        for name, value in vars(progress).items():
            _PROGRESS[name].validate_python(value, strict=True)
        _REST.validate_python((offsets, order_sha256), strict=True)
        folder = files[STATE].parent.name
        if folder.startswith("step-") and folder != f"step-{progress.step:08d}":
            raise ValueError(f"step is {progress.step} in {folder}")
        if fault := progress.contradiction():
            raise ValueError(fault)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        fault = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise UserError(
            STATE, f"is not the state of a run: {quoted(fault)}", "resume another checkpoint"
        ) from None
    return progress, offsets, order_sha256


_Count = Annotated[int, Field(ge=0, lt=1 << 40)]
_PROGRESS: dict[str, TypeAdapter[Any]] = {
    name: TypeAdapter({int: _Count, int | None: _Count | None}.get(hint, hint))
    for name, hint in get_type_hints(Progress).items()
}
_REST = TypeAdapter(tuple[dict[str, _Count], str])


def progress_of(files: Mapping[str, Path]) -> Progress:
    """The position of the run at a checkpoint."""
    return _read_state(files)[0]


def best_steps_at(folder: Path, step: int) -> set[int]:
    """`best_steps` of one checkpoint of a run, without verification of its bytes; none if it cannot be read."""
    with suppress(UserError):
        return progress_of({STATE: folder / f"step-{step:08d}" / STATE}).best_steps
    return set()


def _meter(trainer: Trainer, files: Mapping[str, Path]) -> Meter:
    """The measurements of the epoch under way.

    Raises:
        UserError: they belong to other tasks or metrics.
    """
    meter, tensors = trainer.new_meter(), _load(files, METER)
    own = meter.state()
    _require_same_tensors(METER, {name: t for name, t in tensors.items() if name in own}, own)
    try:
        meter.restore(tensors)
    except (KeyError, RuntimeError) as error:
        raise UserError(METER, f"cannot be read: {quoted(str(error))}") from None
    return meter


def require_finite(
    tensors: Mapping[str, Tensor], todo: str = "resume an older checkpoint, or add --allow-nonfinite"
) -> None:
    """Refuse weights that are infinite or NaN.

    Raises:
        UserError: a tensor holds such a value.
    """
    for name, tensor in tensors.items():
        wide = tensor.float() if tensor.element_size() == 1 else tensor  # isfinite knows no float8
        if tensor.is_floating_point() and not bool(torch.isfinite(wide).all()):
            raise UserError(MODEL, f"holds non-finite values in {quoted(name)}", todo)


def _moments(
    trainer: Trainer, progress: Progress, tensors: Mapping[str, Tensor]
) -> dict[str, dict[str, Tensor]]:
    """Parameter name -> the optimizer's state of it at `progress`; empty before the first step.

    Raises:
        UserError: the tensors are not the state of this optimizer.
    """
    parameters = {
        name: parameter
        for group in trainer.optimizer.param_groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
    }
    remembered = _remembered(trainer) if tensors or progress.step > progress.skipped else {}
    own = {
        f"{name}::{key}": torch.empty_like(parameter if is_whole else value, device="meta")
        for name, parameter in parameters.items()
        for key, (value, is_whole) in remembered.items()
    }
    _require_same_tensors(OPTIMIZER, tensors, own)
    return {name: {key: tensors[f"{name}::{key}"] for key in remembered} for name in parameters}


def _remembered(trainer: Trainer) -> dict[str, tuple[Tensor, bool]]:
    """Name of a state tensor -> an example, and whether it has the parameter's shape.

    A second optimizer of the same recipe takes one step to show this.
    """
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.zeros(2)
    other = trainer.recipe.optimizer.build(
        [{"params": [parameter], "names": [""], "decay": False, "lr_scale": 1.0}]
    )
    other.step()
    values = {key: value for key, value in other.state[parameter].items() if isinstance(value, Tensor)}
    return {key: (value, value.shape == parameter.shape) for key, value in values.items()}


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """A moment in the memory layout of its parameter, copied only if its layout differs; a step count is unchanged."""
    if value.ndim == 0:
        return value
    if value.stride() == parameter.stride():
        return value.to(parameter)
    return torch.empty_like(parameter).copy_(value)


def load_weights(model: nn.Module, files: Mapping[str, Path]) -> None:
    """Replace all of a model's weights and buffers by those of a checkpoint; after an error, the model is unchanged.

    Raises:
        UserError: names, shapes or types differ.
    """
    _put(model, _weights(model, files))


def require_same_weights(model: nn.Module, files: Mapping[str, Path]) -> None:
    """Refuse a checkpoint of another network; only names, shapes and types are read, so a network may be on `meta`.

    Raises:
        UserError: names, shapes or types differ.
    """
    _require_same_tensors(MODEL, _load(files, MODEL, read_shapes), model.state_dict())


def _weights(model: nn.Module, files: Mapping[str, Path]) -> dict[str, Tensor]:
    tensors = _load(files, MODEL)
    _require_same_tensors(MODEL, tensors, model.state_dict())
    return tensors


def _put(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    own = model.state_dict()
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def _require_same_tensors(file: str, tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    faults = []
    for what, names in (("lacks", own.keys() - tensors.keys()), ("has unknown", tensors.keys() - own.keys())):
        if names:
            faults.append(f"{what} {', '.join(map(_named, sorted(names)[:SHOWN]))}")
    shared = [name for name in tensors if name in own]
    facts: tuple[Callable[[Tensor], str], ...] = (lambda t: str(tuple(t.shape)), lambda t: str(t.dtype)[6:])
    for shown in facts:
        others = [name for name in shared if shown(tensors[name]) != shown(own[name])]
        faults += [
            f"{_named(name)} is {shown(tensors[name])}, the recipe's is {shown(own[name])}"
            for name in others[:SHOWN]
        ]
    if faults:
        raise UserError(file, "; ".join(faults))


def _named(name: str) -> str:
    """The quoted name of a tensor, uncut up to 120 characters, since the end of the name identifies the tensor."""
    return repr(name) if name.isprintable() and len(name) <= 120 else quoted(name)


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            for key, value in optimizer.state.get(parameter, {}).items():
                assert value is None or isinstance(value, Tensor)  # a resumed run would lack anything else
                if value is not None:
                    tensors[f"{name}::{key}"] = value
    return tensors


def _load(
    files: Mapping[str, Path], name: str, read: Callable[[Path], dict[str, Tensor]] = read_tensors
) -> dict[str, Tensor]:
    try:
        return read(files[name])
    except (KeyError, OSError, SafetensorError) as error:
        text = str(error)
        shown = text if text.isprintable() and len(text) <= 200 else quoted(text)
        raise UserError(name, f"cannot be read: {shown}") from None

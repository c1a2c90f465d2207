"""A trainer's state as files of a checkpoint, and back. Safetensors and JSON; nothing is unpickled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from mtl.errors import UserError, quoted
from mtl.training.checkpoint import canonical_json, strict_json
from mtl.training.fit import Progress, Trainer

SCHEMA_VERSION = 1
MODEL, OPTIMIZER, WEIGHTING, STATE = (
    "model.safetensors",
    "optim.safetensors",
    "weighting.safetensors",
    "state.json",
)


def capture(trainer: Trainer, offsets: Mapping[str, int]) -> dict[str, bytes]:
    """Everything that the rest of the run depends on.

    Dropout draws and the order of rows are functions of (seed, position), so no generator state is here.

    Args:
        trainer: at the edge of an epoch.
        offsets: log file -> its length in bytes.
    """
    state = {
        "schema_version": SCHEMA_VERSION,
        "position": {
            "epoch": trainer.progress.epoch,
            "step_in_epoch": 0,
            "global_step": trainer.progress.step,
            "total_steps": trainer.total_steps,
        },
        "progress": asdict(trainer.progress),
        "offsets": dict(offsets),
    }
    return {
        MODEL: _save(trainer.built.model.state_dict()),
        OPTIMIZER: _save(_optimizer_tensors(trainer.optimizer)),
        WEIGHTING: _save(trainer.weighting.state_dict()),
        STATE: canonical_json(state),
    }


def restore(trainer: Trainer, files: Mapping[str, bytes]) -> dict[str, int]:
    """Put a trainer where a checkpoint was; returns the lengths of the log files then.

    Raises:
        UserError: the checkpoint is for another model.
    """
    state = strict_json(files[STATE])
    moments, weighting = _moments(trainer.optimizer, _load(files, OPTIMIZER)), _load(files, WEIGHTING)
    load_weights(trainer.built.model, files)
    trainer.weighting.load_state_dict(weighting)
    for group in trainer.optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            trainer.optimizer.state[parameter] = {
                key: _like(value, parameter) for key, value in moments[name].items()
            }
    trainer.progress = Progress(**state["progress"])
    return dict(state["offsets"])


def _moments(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Parameter name -> what the optimizer remembers of it; the same things of each, or it is refused."""
    moments: dict[str, dict[str, Tensor]] = {
        name: {} for group in optimizer.param_groups for name in group["names"]
    }
    for full_name, tensor in tensors.items():
        name, _, key = full_name.partition("::")
        if name not in moments:
            raise UserError(OPTIMIZER, f"has unknown {quoted(full_name)}")
        moments[name][key] = tensor
    keys = {key for own in moments.values() for key in own}
    for name, own in moments.items():
        if own.keys() != keys:
            raise UserError(OPTIMIZER, f"lacks {', '.join(sorted(keys - own.keys()))} of {quoted(name)}")
    return moments


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """A moment in the memory layout of its parameter; the step count as it is."""
    if value.shape != parameter.shape:
        return value.to(parameter.device)
    return torch.empty_like(parameter).copy_(value)


def load_weights(model: nn.Module, files: Mapping[str, bytes]) -> None:
    """Replace a model's weights and buffers by those of a checkpoint, all of them or none.

    Raises:
        UserError: names, shapes or types differ.
    """
    tensors, own = _load(files, MODEL), model.state_dict()
    for what, names in (("lacks", own.keys() - tensors.keys()), ("has unknown", tensors.keys() - own.keys())):
        if names:
            raise UserError(MODEL, f"{what} {', '.join(map(quoted, sorted(names)[:5]))}")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise UserError(
                MODEL, f"{quoted(name)} is {tuple(tensor.shape)}, the recipe's is {tuple(own[name].shape)}"
            )
        if tensor.dtype != own[name].dtype:
            types = [str(t.dtype).removeprefix("torch.") for t in (tensor, own[name])]
            raise UserError(MODEL, f"{quoted(name)} is {types[0]}, the recipe's is {types[1]}")
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors: dict[str, Any] = {}
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            for key, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"{name}::{key}"] = value
    return tensors


def _save(tensors: Mapping[str, Tensor]) -> bytes:
    return save_tensors(
        {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    )


def _load(files: Mapping[str, bytes], name: str) -> dict[str, Tensor]:
    try:
        return load_tensors(files[name])
    except (KeyError, SafetensorError) as error:
        raise UserError(name, f"cannot be read: {error}") from None

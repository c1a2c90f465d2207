"""Memory of a training process over one that imports torch, beside the bytes that its steps cannot do without.

The kernel tells the most that a process has had (VmHWM). What a step needs is weights, gradients, the state of the
optimizer, the data as they are held, and what a forward pass saves for the backward pass, each storage once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from bench.speed.measure import MEGABYTE, cell, child, spread
from bench.speed.measure import table as markdown
from mtl.training.trainer import Trainer

ROUNDS = 3
TITLE = "Memory"
CASE, STEPS = "fashion_stitch", 20
TARGET = 1.5
STAGES = ("imported", "prepared", "trained")
"""After the imports of mtl; after data and network are made; after some steps."""
PARTS = ("weights", "gradients", "optimizer", "data", "activations")
SETTINGS: dict[str, dict[str, str]] = {
    "as mtl sets it": {},
    "as glibc has it": {"MALLOC_IS_LEFT_ALONE": "1"},
}
"""How memory is kept -> the environment: a name in MALLOC_ stops mtl from setting it, and glibc ignores this one."""


def section(rounds: int, case: str = CASE, steps: int = STEPS) -> dict[str, Any]:
    """Bytes that a step needs, and for each setting the growth over a process that imports torch, stage by stage."""
    grown = {name: {stage: list[int]() for stage in STAGES} for name in SETTINGS}
    bases, needed = list[int](), dict[str, int]()
    for _ in range(rounds):
        bases.append(child(["-m", "bench.speed.children", "import"]).found["peak"])
        for name, environment in SETTINGS.items():
            command = ["-m", "bench.speed.children", "train", case, str(steps)]
            found = child(command, environment).found
            for stage in STAGES:
                grown[name][stage].append(found["stages"][stage] - bases[-1])
            needed = found["needed"]
    whole = sum(needed.values())
    return {
        "case": case,
        "needed": needed,
        "torch": spread(bases),
        "grown": {name: {stage: spread(own[stage]) for stage in STAGES} for name, own in grown.items()},
        "ratio": {name: spread(n / whole for n in own["trained"]) for name, own in grown.items()},
    }


def needed(trainer: Trainer, loop: Iterator[None]) -> dict[str, int]:
    """The bytes of each part; the loop takes another step, whose saved tensors are counted."""
    weights = [*trainer.built.model.parameters(), *trainer.built.model.buffers()]
    state = [
        value
        for own in trainer.optimizer.state.values()
        for value in own.values()
        if isinstance(value, Tensor)
    ]
    rows = trainer.dataset.rows
    data = [rows.inputs, *rows.target.values(), *rows.present.values(), *rows.weight.values()]
    gradients = [p.grad for p in trainer.built.model.parameters() if p.grad is not None]
    counted = _storages([*weights, *data])
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in counted:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        next(loop)
    parts = (
        *(sum(_storages(own).values()) for own in (weights, gradients, state, data)),
        sum(saved.values()),
    )
    return dict(zip(PARTS, parts, strict=True))


def _storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Address -> bytes of each storage."""
    storages = [tensor.untyped_storage() for tensor in tensors]
    return {storage.data_ptr(): storage.nbytes() for storage in storages}


def table(found: Mapping[str, Any]) -> str:
    """The tables of this section: what is needed, and how a process grows from stage to stage."""
    own, whole = found["needed"], sum(found["needed"].values())
    parts = [f"{n / MEGABYTE:.1f}" for n in (*(own[part] for part in PARTS), whole)]
    rows = []
    for name, grown in found["grown"].items():
        stages = [f"{grown[stage]['median'] / MEGABYTE:.1f}" for stage in STAGES]
        rows.append([name, *stages, f"{whole / MEGABYTE:.1f}", cell(found["ratio"][name]), f"{TARGET:.2f}"])
    head = ["memory is kept", *(f"{stage} MB" for stage in STAGES), "needed MB", "trained / needed", "below"]
    return "\n".join((markdown([*(f"{part} MB" for part in PARTS), "sum MB"], [parts]), markdown(head, rows)))

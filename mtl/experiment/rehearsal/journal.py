"""A journal of everything that the parts of a trainer give, by which two trainings are compared."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from mtl.errors import KeyPath
from mtl.model.tasks.module import TaskModule
from mtl.model.towers import Towers
from mtl.runs.tensor_files import bytes_of
from mtl.training.trainer import Trainer


@dataclass(frozen=True)
class Entry:
    """Something that a part gave.

    Args:
        maker: the class and its method.
        verb: what it did.
        path: the key of the part in the recipe.
        digest: of its values, where they must be the same bits.
        sizes: each number, and the norm of each tensor, where they need only be near.
    """

    maker: str
    verb: str
    path: KeyPath
    digest: bytes
    sizes: tuple[float, ...]

    def equals(self, other: Entry) -> bool:
        """Whether the same was given twice."""
        if self.digest or other.digest:
            return self.digest == other.digest
        near = zip(self.sizes, other.sizes, strict=False)
        return len(self.sizes) == len(other.sizes) and all(
            abs(a - b) <= 1e-3 * max(abs(a), abs(b)) for a, b in near
        )


class Journal:
    """What all parts of a trainer give, in the order of time.

    Args:
        trainer: the trainer; its modules are watched from now on, so that it is of no other use.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.entries: list[Entry] = []
        self._exact = trainer.device.type == "cpu" and trainer.recipe.train.deterministic
        self._open: list[tuple[str, KeyPath]] = []  # the modules whose forward pass is under way
        self._paths = _paths_of_modules(trainer)
        for name, module in trainer.built.model.named_modules():
            self._watch_forward(module, self._path(name))
        for module in trainer.modules.values():
            self._watch(module, "loss", ("tasks", module.tasks[0]))
        for method in ("derivatives", "combine"):
            self._watch(trainer.weighting, method, ("weighting",))
        self._watch_optimizer(trainer)

    def first_difference(self, other: Journal) -> Entry | None:
        """The first entry in which two journals differ; one that the other lacks differs too."""
        for own, theirs in zip_longest(self.entries, other.entries):
            if own is None or theirs is None or own.maker != theirs.maker or not own.equals(theirs):
                return own or theirs
        return None

    def take_step(self, trainer: Trainer, values: object) -> None:
        """Note what is there after a step."""
        weighting, model = trainer.weighting, trainer.built.model
        self._note(f"{type(weighting).__name__}.after_step", "gives", ("weighting",), weighting.state_dict())
        self._note("the network", "has", ("model",), model.state_dict())
        for module in trainer.modules.values():
            self._note(f"{type(module).__name__}.metric", "gives", ("tasks", module.tasks[0]), values)

    def take_evaluation(self, trainer: Trainer, values: object) -> None:
        """Note the metrics of an evaluation."""
        for module in trainer.modules.values():
            self._note(f"{type(module).__name__}.metric", "gives", ("tasks", module.tasks[0]), values)

    def _path(self, name: str) -> KeyPath:
        holders = [prefix for prefix in self._paths if f"{name}.".startswith(prefix)]
        return self._paths[max(holders, key=len)] if holders else ("model",)

    def _watch_forward(self, module: nn.Module, path: KeyPath) -> None:
        """Note what a module gets, which the module around it computed, and what it gives."""
        maker = f"{type(module).__name__}.forward"

        def begin(_: nn.Module, given: Any, named: Any) -> None:
            outer, outer_path = self._open[-1] if self._open else ("the batch", ("data",))
            self._note(outer, "hands on", outer_path, (given, named))
            self._open.append((maker, path))

        def end(_: nn.Module, given: Any, found: Any) -> None:
            self._open.pop()
            self._note(maker, "gives", path, found)

        module.register_forward_pre_hook(begin, with_kwargs=True)
        module.register_forward_hook(end)

    def _watch(self, module: nn.Module, method: str, path: KeyPath) -> None:
        """Note what a method gives."""
        plain = getattr(module, method)

        def noted(*given: Any, **named: Any) -> Any:
            found = plain(*given, **named)
            own = {"derivatives": "forward"}.get(method, method)
            self._note(f"{type(module).__name__}.{own}", "gives", path, found)
            return found

        setattr(module, method, noted)

    def _watch_optimizer(self, trainer: Trainer) -> None:
        """Note the gradients and rates that the optimizer gets, and the parameters that it gives."""
        optimizer, model, schedule = trainer.optimizer, trainer.built.model, trainer.recipe.schedule
        plain, modules = optimizer.step, dict(model.named_modules())

        def noted() -> None:
            for name, parameter in model.named_parameters():
                owner = name.rpartition(".")[0]
                maker = f"{type(modules[owner]).__name__}.forward"
                self._note(maker, "has a gradient with", self._path(owner), parameter.grad)
            rates = [group["lr"] for group in optimizer.param_groups]
            self._note(f"{type(schedule).__name__}.factor", "gives", ("schedule",), rates)
            plain()
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            self._note(f"{type(optimizer).__name__}.step", "gives", ("optimizer",), parameters)

        optimizer.step = noted  # type: ignore[assignment,method-assign]

    def _note(self, maker: str, verb: str, path: KeyPath, value: object) -> None:
        digest, sizes = hashlib.blake2b(digest_size=16), []
        for part in _parts(value):
            if not isinstance(part, Tensor):
                digest.update(repr(part).encode())
                sizes += [float(part)] if isinstance(part, int | float) else []
            elif self._exact:
                digest.update(f"{part.dtype}{tuple(part.shape)}".encode())
                for piece in bytes_of(part.detach()):
                    digest.update(piece)
            else:
                sizes.append(float(torch.linalg.vector_norm(part.detach().double().cpu())))
        self.entries.append(Entry(maker, verb, path, digest.digest() if self._exact else b"", tuple(sizes)))


def _parts(value: object) -> Iterator[object]:
    """The tensors and plain values in something that a part gave."""
    if isinstance(value, Mapping):
        for part in value.values():
            yield from _parts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _parts(part)
    elif isinstance(value, Tensor | float | int | str | None):
        yield value


def _paths_of_modules(trainer: Trainer) -> dict[str, KeyPath]:
    """The first part of a module's name -> the key of the part of the recipe that built it."""
    paths: dict[str, KeyPath] = {"inputs.": ("data",), "trunk.": ("model", "sharing")}
    for name, module in trainer.built.model.named_modules():
        if isinstance(module, Towers):
            paths[f"{name}."] = ("model", "backbone")
        elif isinstance(module, TaskModule):
            paths[f"{name}."] = ("tasks", module.tasks[0])
    return paths

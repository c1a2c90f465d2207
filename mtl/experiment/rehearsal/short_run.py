"""A few steps are stopped and resumed before a run whose recipe has a user's own parts.

A part may remember something that no checkpoint holds: in a plain attribute, in a random generator of its own, in a
global. A resumed run would then go on to other numbers without a word. Its types do not show this, but its numbers do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from mtl.contracts import called
from mtl.dataset.assemble import Dataset, read_sources
from mtl.errors import NotFinite, UserError, quoted
from mtl.evaluation.evaluate import evaluate
from mtl.evaluation.meter import Values
from mtl.experiment.rehearsal.journal import Journal
from mtl.recipe.base import Spec
from mtl.recipe.keys.recipe import Recipe
from mtl.runs.disk import write_new
from mtl.runs.state import capture, restore
from mtl.runs.tensor_files import NAMES
from mtl.training import devices
from mtl.training.step import train_step
from mtl.training.trainer import Trainer

BEFORE, AFTER, EPOCH = 5, 2, 2
"""So many steps before the stop and after it; an epoch is so short that a weighting sees two of them end before it."""
ROWS = 32
OURS = ("mtl", "tasks")
"""The packages whose parts are resumed in mtl's own tests."""


def has_own_parts(recipe: Recipe) -> bool:
    """Whether a part of the training, or a source of its rows, is none of mtl's own."""
    training = (
        recipe.model,
        recipe.weighting,
        recipe.optimizer,
        recipe.schedule,
        *recipe.tasks.values(),
    )
    return any(is_own(spec) for part in (*training, *recipe.data.by_name.values()) for spec in _specs(part))


def is_own(spec: Spec) -> bool:
    """Whether a part is none of mtl's own."""
    return type(spec).__module__.split(".")[0] not in OURS


def _specs(value: Any) -> Iterator[Spec]:
    if isinstance(value, Spec):
        yield value
    inner: Any = ()
    if hasattr(type(value), "model_fields"):
        inner = [getattr(value, name) for name in type(value).model_fields]
    elif isinstance(value, Mapping):
        inner = value.values()
    elif isinstance(value, list | tuple):
        inner = value
    for part in inner:
        yield from _specs(part)


def require_same_rows(recipe: Recipe, dataset: Dataset) -> None:
    """Refuse a source of the user's own that gives other rows when it is asked again, as a resumed run would.

    Raises:
        UserError: the rows differ.
    """
    own = [name for name, source in recipe.data.by_name.items() if is_own(source)]
    if own and read_sources(recipe).fingerprint != dataset.fingerprint:
        source = recipe.data.by_name[own[0]]
        with recipe.at("data", *recipe.data.path_of(own[0])):
            what = f"{type(source).__name__}.columns gives other rows each time it is called"
            raise UserError("", what, "draw random numbers from its argument, the seed, alone")


def require_resumable(new_trainer: Callable[[], Trainer], forget: Callable[[], None]) -> None:
    """Train a few steps, save, and go on twice: with the same trainer, and with a new one that reads what was saved.

    Both must compute the same: bit for bit on a CPU, to 1e-3 on another device. Only one trainer is in memory at a
    time. A loss that is not finite ends the comparison without a verdict, since the run itself will say so.

    Args:
        new_trainer: builds a trainer at the start of the run.
        forget: puts the globals of plug-ins back to what they are in a new process.

    Raises:
        UserError: the numbers differ; the error names the class and method that gave the first of them.
    """
    with TemporaryDirectory(prefix="mtl-") as folder, suppress(NotFinite):
        forget()
        files, undisturbed = _stopped(new_trainer(), Path(folder))
        forget()
        trainer = new_trainer()
        recipe = trainer.recipe
        try:
            restore(trainer, files)
        except UserError as error:
            what = f"after {BEFORE} steps a checkpoint does not fit a new network: {error}"
            raise UserError("", what, "register every buffer in __init__, in its final shape") from None
        except (RuntimeError, NotImplementedError, TypeError) as error:
            raise _unsavable(error) from error
        resumed = Journal(trainer)
        _train(trainer, AFTER, resumed)
        if fault := undisturbed.first_difference(resumed):
            with recipe.at(*fault.path):
                differs = f"{fault.maker} {fault.verb} other numbers after a stop and a resume"
                todo = "keep it in parameters and in buffers (register_buffer), and draw with torch's global generator"
                raise UserError("", f"{differs}: no checkpoint holds all that it remembers", todo)


def _stopped(trainer: Trainer, folder: Path) -> tuple[dict[str, Path], Journal]:
    """The files of a checkpoint after `BEFORE` steps, and what the trainer computes in the steps after it."""
    _train(trainer, BEFORE)
    files = {}
    try:
        _require_tensors(trainer)
        for name, content in capture(trainer, {}).items():
            files[name] = folder / name
            write_new(files[name], content)
    except (AttributeError, KeyError, NotImplementedError, RuntimeError, TypeError) as error:
        raise _unsavable(error) from error
    journal = Journal(trainer)
    _train(trainer, AFTER, journal)
    return files, journal


def _unsavable(error: Exception) -> UserError:
    """The fault of a part whose state cannot be written, or not be read back."""
    what = f"a part keeps what a checkpoint cannot hold or give back: {type(error).__name__}: {quoted(str(error))}"
    return UserError("", what, "keep plain tensors, each with memory of its own")


def _evaluate(trainer: Trainer) -> Values:
    """Metrics of a few rows in evaluation mode, as at the end of an epoch."""
    devices.seed(trainer.device, trainer.progress.step)
    rows = trainer.dataset.splits["train"][:ROWS]
    return evaluate(trainer.built.model, trainer.recipe.tasks, trainer.dataset, rows, "train")


def _require_tensors(trainer: Trainer) -> None:
    """Refuse state that is offered to a checkpoint but is no tensor.

    Raises:
        UserError: a module or the optimizer has such state.
    """
    known = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    if any(id(key) not in known for key in trainer.optimizer.state):
        with trainer.recipe.at("optimizer"):
            what = f"{type(trainer.optimizer).__name__} keeps state for something that is no parameter"
            raise UserError("", what, "keep it in tensors, by parameter")
    offered = [
        ("model", trainer.built.model, trainer.built.model.state_dict()),
        ("weighting", trainer.weighting, trainer.weighting.state_dict()),
        *(("optimizer", trainer.optimizer, state) for state in trainer.optimizer.state.values()),
    ]
    for key, owner, state in offered:
        for name, value in state.items():
            if value is not None and getattr(value, "dtype", None) not in NAMES:
                is_tensor = isinstance(value, Tensor)
                kind = f"a tensor of {str(value.dtype)[6:]}" if is_tensor else called(value)
                with trainer.recipe.at(key):
                    what = f"the state {quoted(str(name))} of {type(owner).__name__} is {kind}"
                    raise UserError("", what, "keep it in a tensor of a type that a checkpoint can hold")


def _train(trainer: Trainer, n_steps: int, journal: Journal | None = None) -> None:
    """Steps of few rows, in epochs of `EPOCH` steps."""
    progress, weighting = trainer.progress, trainer.weighting
    trainer.network = trainer.built.model  # not the compiled one, which is made for batches of one size
    trainer.built.model.train()
    n_parts = min(trainer.recipe.train.accumulate, max(2, weighting.batches))
    for _ in range(n_steps):
        trainer.meter = trainer.meter or trainer.new_meter()
        parts = [rows[:ROWS] for rows in islice(trainer.sampler.batches(progress.step), n_parts)]
        train_step(trainer, parts, trainer.meter)
        progress.step += 1
        progress.step_in_epoch += 1
        values = trainer.meter.values("train")
        if journal is not None:
            journal.take_step(trainer, values)
        values = _evaluate(trainer)
        if journal is not None:
            journal.take_evaluation(trainer, values)
        if progress.step_in_epoch == EPOCH:
            weighting.after_epoch(*trainer.meter.losses())
            progress.epoch, progress.step_in_epoch, trainer.meter = progress.epoch + 1, 0, None

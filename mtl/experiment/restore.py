"""Which checkpoint a run goes on from, and how the trainer and the logs get there."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from mtl.errors import UserError
from mtl.runs import checkpoint, retention, state
from mtl.runs.folder import RunFolder
from mtl.training.events import Stream, Warned
from mtl.training.trainer import Trainer


def restore(
    folder: RunFolder, trainer: Trainer, step: int | None, stream: Stream, allow_nonfinite: bool
) -> int | None:
    """Put the trainer and the logs where a checkpoint was; later checkpoints are set aside.

    Args:
        folder: the run, held.
        trainer: at the beginning.
        step: the checkpoint that is asked for, which must be whole; None: the newest one that is.
        stream: who is told of checkpoints that are damaged.
        allow_nonfinite: take infinite and NaN weights too.

    Returns:
        The step of the checkpoint; None if there is none yet.

    Raises:
        UserError: no checkpoint can be used, or the logs lack lines that it counts on.
    """
    retention.clean(folder.checkpoints)
    step, offsets = load_checkpoint(folder, trainer, step, stream, allow_nonfinite)
    if step is not None:
        retention.set_aside(folder.checkpoints, step)  # those after it: damaged, or not asked for
    folder.logs.cut(offsets, trainer.progress.epoch)
    folder.remove_leftovers()
    return step


def load_checkpoint(
    folder: RunFolder, trainer: Trainer, step: int | None, stream: Stream, allow_nonfinite: bool
) -> tuple[int | None, dict[str, int]]:
    """As `restore`, but the folder stays as it is; also returns how long each log was at the checkpoint."""
    if step is not None:
        files = _named(folder, step)
    elif checkpoint.steps(folder.checkpoints):
        step, files = _newest(folder, stream)
    else:
        stream.on(Warned(f"{folder.path}: no checkpoint found; starting from the beginning"))
        return None, {}
    try:
        offsets = state.restore(trainer, files, allow_nonfinite)
    except UserError as error:
        place = _at(folder, step) / str(error.place)
        raise UserError(str(place), error.what, error.todo) from None
    folder.logs.require_whole(offsets)
    return step, offsets


def _at(folder: RunFolder, step: int) -> Path:
    return folder.checkpoints / f"step-{step:08d}"


def _verified(folder: RunFolder, step: int) -> dict[str, Path]:
    """The files of one checkpoint of the run, each found to be what its manifest says."""
    return checkpoint.verified(_at(folder, step), folder.record.id)


def _damage_of_best(folder: RunFolder, step: int, files: Mapping[str, Path]) -> tuple[int, str] | None:
    """The best step by validation at a checkpoint, and what is wrong with it; None if it is whole.

    The end of the run needs the weights of that step.
    """
    best = state.best_step(files)
    if best is None or best == step:
        return None
    try:
        _verified(folder, best)
    except checkpoint.Damaged as reason:
        return best, str(reason)
    return None


def _named(folder: RunFolder, step: int) -> dict[str, Path]:
    """The files of the checkpoint that was asked for.

    Raises:
        UserError: it is damaged, or the best one by validation is that it knows of.
    """
    try:
        files = _verified(folder, step)
    except checkpoint.Damaged as reason:
        what, todo = f"is damaged ({reason})", "resume the run to use an older one"
        raise UserError(str(_at(folder, step)), what, todo) from None
    damage = _damage_of_best(folder, step, files)
    if damage is not None:
        what = f"its best by validation, step-{damage[0]:08d}, is damaged ({damage[1]})"
        raise UserError(str(_at(folder, step)), what, "go back to another one")
    return files


def _newest(folder: RunFolder, stream: Stream) -> tuple[int, dict[str, Path]]:
    """The newest checkpoint that is whole, and whose best one by validation is whole too.

    Raises:
        UserError: there is none.
    """
    step, files, warnings = checkpoint.newest(folder.checkpoints, folder.record.id)
    for warning in warnings:
        stream.on(Warned(warning))
    while (damage := _damage_of_best(folder, step, files)) is not None:
        best, reason = damage
        text = f"step-{best:08d}, the best by validation, is damaged ({reason})"
        step, files = _before(folder, best, text)
        stream.on(Warned(f"{text}; using step-{step:08d}"))
    return step, files


def _before(folder: RunFolder, best: int, text: str) -> tuple[int, dict[str, Path]]:
    """The newest whole checkpoint before a step."""
    for step in reversed([step for step in checkpoint.steps(folder.checkpoints) if step < best]):
        with suppress(checkpoint.Damaged):
            return step, _verified(folder, step)
    raise UserError(
        str(folder.path), f"{text}, and no older checkpoint is whole", f"see mtl checkpoints {folder.path}"
    )

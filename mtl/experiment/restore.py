"""This module chooses the checkpoint of a resumed run, and restores the trainer and the logs from it."""

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
    """Restore the trainer and the logs from a checkpoint, and set later checkpoints aside.

    Args:
        folder: the run, which this process holds.
        trainer: the trainer, before its first step.
        step: the step of the requested checkpoint, which must be whole; None: the newest whole one.
        stream: the listeners that hear of damaged checkpoints.
        allow_nonfinite: accept infinite and NaN weights.

    Returns:
        The step of the checkpoint; None if the run has none yet.

    Raises:
        UserError: no checkpoint can be used, or the logs lack lines that they had at the checkpoint.
    """
    retention.clean(folder.checkpoints)
    step, offsets = load_checkpoint(folder, trainer, step, stream, allow_nonfinite)
    if step is not None:
        retention.set_aside(folder.checkpoints, step)  # later ones are damaged or were not requested
    folder.logs.cut(offsets, trainer.progress.epoch)
    folder.remove_leftovers()
    return step


def load_checkpoint(
    folder: RunFolder, trainer: Trainer, step: int | None, stream: Stream, allow_nonfinite: bool
) -> tuple[int | None, dict[str, int]]:
    """As `restore`, but the folder stays unchanged; the second result is the length of each log at the checkpoint."""
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
    """File name -> path for one checkpoint of the run, after every file agreed with the manifest."""
    return checkpoint.verified(_at(folder, step), folder.record.id)


def _damage_of_best(folder: RunFolder, step: int, files: Mapping[str, Path]) -> tuple[int, str] | None:
    """A best step by validation at a checkpoint whose own checkpoint is damaged, and how; None if all are whole.

    The end of the run needs the weights of the best steps.
    """
    for best in sorted(state.progress_of(files).best_steps - {step}):
        try:
            _verified(folder, best)
        except checkpoint.Damaged as reason:
            return best, reason.told
    return None


def _named(folder: RunFolder, step: int) -> dict[str, Path]:
    """The files of the requested checkpoint.

    Raises:
        UserError: it is damaged, or the checkpoint of its best step by validation is damaged.
    """
    try:
        files = _verified(folder, step)
    except checkpoint.Damaged as reason:
        what, todo = reason.told, "resume the run to use an older one"
        raise UserError(str(_at(folder, step)), what, todo) from None
    damage = _damage_of_best(folder, step, files)
    if damage is not None:
        what = f"its best by validation, step-{damage[0]:08d}, {damage[1]}"
        raise UserError(str(_at(folder, step)), what, "go back to another one")
    return files


def _newest(folder: RunFolder, stream: Stream) -> tuple[int, dict[str, Path]]:
    """The newest checkpoint that is whole, and whose best step by validation has a whole checkpoint too.

    Raises:
        UserError: the run has no such checkpoint.
    """
    step, files, warnings = checkpoint.newest(folder.checkpoints, folder.record.id)
    for warning in warnings:
        stream.on(Warned(warning))
    while (damage := _damage_of_best(folder, step, files)) is not None:
        best, reason = damage
        text = f"step-{best:08d}, the best by validation, {reason}"
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

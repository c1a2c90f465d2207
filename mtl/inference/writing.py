"""Writes predictions into a CSV, Parquet or npz file, batch by batch; memory does not grow with the rows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mtl.data.columns.unseen import Unseen
from mtl.data.files.parts import takes
from mtl.data.files.remote.address import is_address
from mtl.errors import EnvironmentFault, UserError, quoted
from mtl.inference.keep import beside
from mtl.inference.writers import WRITERS, Texts, Writer
from mtl.signals import undoing

if TYPE_CHECKING:
    from mtl.inference.predict import TrainedModel


def check_output(output: str, data: str, spreadsheet_safe: bool = False) -> Path:
    """The path of the predictions.

    Raises:
        UserError: its name is taken, has an unknown suffix, or none of a file that a spreadsheet runs.
    """
    target = Path(output)
    if target.suffix not in WRITERS:
        raise UserError("--output", f"{quoted(output)} is none of {', '.join(WRITERS)}")
    if spreadsheet_safe and target.suffix != ".csv":
        raise UserError("--spreadsheet-safe", f"{quoted(output)} is no .csv", "leave it out")
    if target.is_dir():
        raise UserError("--output", f"{quoted(output)} is a directory")
    if is_address(data):
        return target
    if target.exists() and Path(data).exists() and target.samefile(data):
        raise UserError("--output", f"{quoted(output)} is the input", "give another name")
    if takes(Path(data), target):
        raise UserError("--output", f"{quoted(output)} would be a file of the input", "write it elsewhere")
    return target


def require_free(target: Path, run: Path, force: bool) -> None:
    """Refuse to write over a file that somebody may need, or into something that is no file.

    Raises:
        UserError: the path is in the run folder, is no regular file, or is there already and `force` is not given.
    """
    shown = quoted(str(target))
    try:
        inside = run.resolve() in target.resolve().parents
    except (OSError, RuntimeError):  # RuntimeError: a circle of links, before Python 3.13
        raise UserError("--output", f"{shown} leads nowhere", "give another name") from None
    if inside:
        raise UserError("--output", f"{shown} is in the run folder", "write it elsewhere")
    if os.path.lexists(target):
        if not target.is_file():
            raise UserError("--output", f"{shown} is not a regular file", "give another name")
        if not force:
            raise UserError("--output", f"{shown} is there already", "give another name, or --force")


@undoing()
def write_predictions(
    model: TrainedModel,
    data: str,
    output: str,
    keep: Sequence[str] = (),
    unseen: Mapping[str, Unseen] | None = None,
    spreadsheet_safe: bool = False,
) -> int:
    """Predict for every row of a file, and return the number of rows; `output` appears only when it is complete.

    In a CSV or npz file a list of labels is one text. An empty list is written as empty text where the task says
    `empty: none`, else as the separator alone, which reads back as a list without labels. A kept column that has the
    name of a prediction is called `<name>_given`. With `spreadsheet_safe`, a text of a CSV that a spreadsheet would run
    as a formula, since it begins with =, +, -, @, a tab or a carriage return, has an apostrophe in front.

    Raises:
        UserError: the input has another form than the run's data, or the output's name is taken or has an unknown
            suffix.
        EnvironmentFault: the output cannot be written.
    """
    target = check_output(output, data)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    texts = _texts_of(model, spreadsheet_safe)
    n_rows = 0
    writer: Writer | None = None
    try:
        for kept, predictions in model.batches(data, keep, unseen):
            columns = beside(kept, predictions)
            writer = writer or WRITERS[target.suffix](temporary, texts)
            writer.write(columns)
            n_rows += len(next(iter(predictions.values())))
        if writer is None:
            raise UserError(data, "no rows")
        writer.finish()
        os.replace(temporary, target)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise EnvironmentFault(str(target), f"cannot write: {why}") from error
    finally:
        with suppress(OSError):
            if writer is not None:
                writer.close()
        with suppress(OSError):
            temporary.unlink()
    return n_rows


def _texts_of(model: TrainedModel, spreadsheet_safe: bool) -> Texts:
    tasks = model.recipe.tasks.items()
    separators = {task: model.feed.source.label_separator(spec.target) for task, spec in tasks}
    empty_is_none = frozenset(task for task, spec in tasks if spec.empty_means == "none")
    return Texts(separators, empty_is_none, spreadsheet_safe)

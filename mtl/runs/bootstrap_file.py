"""bootstrap.json: the headline metric of each task on resampled test rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from mtl.errors import UserError
from mtl.evaluation.bootstrap import Resampled
from mtl.runs.disk import plain_size, write_whole
from mtl.runs.json_text import canonical_json, strict_json
from mtl.runs.record import PUT_BACK, Count, Number, Shape, Word, fault_in, unreadable

BOOTSTRAP = "bootstrap.json"


class TaskReplicates(Shape):
    """One task; see `Resampled`."""

    metric: Word
    value: Number
    replicates: Annotated[list[Number], Field(max_length=10_000)]
    n_units: Count
    by_group: bool


class Bootstrap(Shape):
    """The content of bootstrap.json."""

    schema_version: Literal[1]
    tasks: dict[Word, TaskReplicates]


def write_bootstrap(folder: Path, found: Mapping[str, Resampled]) -> None:
    """Write bootstrap.json into a run folder.

    Raises:
        EnvironmentFault: the disk refused.
    """
    tasks = {task: {**asdict(own), "replicates": list(own.replicates)} for task, own in found.items()}
    write_whole(folder / BOOTSTRAP, canonical_json({"schema_version": 1, "tasks": tasks}))


def read_bootstrap(folder: Path) -> Bootstrap:
    """The content of bootstrap.json of a finished run.

    Raises:
        UserError: the file is not there, cannot be read, or is not what a run writes.
    """
    path = folder / BOOTSTRAP
    try:
        plain_size(path)
        return Bootstrap.model_validate(strict_json(path.read_bytes()))
    except OSError as error:
        raise unreadable(path, error) from None
    except ValidationError as error:
        raise UserError(str(path), fault_in(error), PUT_BACK) from None
    except (ValueError, RecursionError) as error:
        raise UserError(str(path), f"cannot be read: {error}", PUT_BACK) from None

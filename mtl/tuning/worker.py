"""A process that makes the trials of a sweep one after the other, as its parent asks for them."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import optuna

from mtl.comparison.processes.child import Position, serve
from mtl.errors import Terminated
from mtl.recipe.load import load_recipe
from mtl.tuning.study import Address, joined_again, storage_faults
from mtl.tuning.trial import Work


@cache
def _joined(address: Address) -> optuna.Study:
    """The study, which this process joins once."""
    return joined_again(address)


def one_trial(job: Mapping[str, Any], plugins: Sequence[str], reports: TextIO) -> dict[str, Any]:
    """Make a trial, and return how it ended."""
    work = Work(
        load_recipe(job["recipe"]),
        _joined(Address(**job["address"])),
        Path(job["folder"]),
        job["metric"],
        job["trials"],
        job["threads"],
        plugins,
    )
    with storage_faults():
        return work.one(lambda number: Position(reports, {"trial": number}))


def _terminate(number: int, frame: FrameType | None) -> None:
    """A trial that is told to stop between two runs says so to the study, as one within a run does."""
    raise Terminated


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        sys.exit(serve(sys.argv[1:], one_trial))
    except Terminated:
        sys.exit(Terminated.code)

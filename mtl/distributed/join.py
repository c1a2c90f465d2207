"""A process joins the others that torchrun has started with it, and leaves them with one line for the user."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from mtl.console import complain
from mtl.distributed.alone import ALONE, Ranks
from mtl.distributed.launch import Place, meeting, place_of_process, unreachable
from mtl.errors import TERMINATED, ToldElsewhere, UserError
from mtl.signals import end_at_once

if TYPE_CHECKING:
    from mtl.distributed.watch import Watch

PATIENCE = 5.0
"""Seconds that a rank which is asked to end waits for another one's silence."""
_joined: list[Ranks] = []


@contextmanager
def joined() -> Iterator[Ranks]:
    """The processes that train together inside; `ALONE` where torchrun did not start this one.

    Rank 0 raises what ends the work, or else the first rank that is left. Any other rank ends with its exit code and
    without a line.

    Raises:
        ToldElsewhere: another rank tells the user why all end.
        RankLost: a rank is gone.
        UserError: a fault of this rank, or one that another rank has told.
    """
    if _joined:
        yield _joined[-1]
        return
    place = place_of_process()
    if place is None:
        yield ALONE
        return
    from mtl.distributed.ranks import Together
    from mtl.distributed.watch import Watch

    with meeting(place):
        try:
            watch = Watch(place, on_lost=lambda line: complain(f"error: {line}"))
            watch.begin()
        except RuntimeError as error:
            raise unreachable(place, error) from None
        ranks = Together(place.local_rank, watch)
        _joined.append(ranks)
        try:
            with _terminated_with_reason(watch):
                yield ranks
        except BaseException as error:
            end = _end(error, place, watch)
            if end is error:
                raise
            raise end from None
        else:
            watch.end()
        finally:
            _joined.pop()


def _end(error: BaseException, place: Place, watch: Watch) -> BaseException:
    """What this rank raises, after the others were told."""
    from mtl.distributed.ranks import FaultOfRank
    from mtl.distributed.told import told_of
    from mtl.distributed.watch import RankLost

    if isinstance(error, FaultOfRank):
        watch.end()
        fault = UserError("", str(error))
        fault.code = error.code
        return fault if place.rank == 0 else ToldElsewhere(error.code)
    if isinstance(error, RankLost):
        tells = watch.tells
        watch.end()
        return error if tells else ToldElsewhere(error.code)
    if isinstance(error, ToldElsewhere):
        watch.end()
        return error
    if place.rank == 0:  # which tells the user of it
        watch.end("" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__)
        return error
    line, code = told_of(error)
    watch.end(line)
    return ToldElsewhere(code)


@contextmanager
def _terminated_with_reason(watch: Watch) -> Iterator[None]:
    """While ranks start, SIGTERM tells which rank is gone: torchrun sends it to all others."""

    def came(number: int, frame: FrameType | None) -> None:
        line = watch.missing(PATIENCE)
        if line is None:
            end_at_once(number, frame)
        if watch.tells:
            complain(f"error: {line}")
        os._exit(TERMINATED)

    ours = signal.getsignal(signal.SIGTERM) is end_at_once
    if ours:
        signal.signal(signal.SIGTERM, came)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, end_at_once)

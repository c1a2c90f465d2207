"""The stages of a run are told to who listens, and to nobody else."""

from __future__ import annotations

import pytest

from mtl import stages
from mtl.stages import Stage, listening, reached


def test_nobody_listens_unless_asked_to() -> None:
    assert stages._listeners == []
    reached("load")


def test_every_listener_is_told_in_turn() -> None:
    told: list[tuple[str, Stage]] = []
    with listening(lambda stage: told.append(("outer", stage))):
        reached("load")
        with listening(lambda stage: told.append(("inner", stage))):
            reached("save")
        reached("plot")
    reached("finish")
    assert told == [("outer", "load"), ("outer", "save"), ("inner", "save"), ("outer", "plot")]


def test_what_a_listener_raises_comes_through_and_it_listens_no_more() -> None:
    def broken(stage: Stage) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), listening(broken):
        reached("step")
    assert stages._listeners == []

"""Q1, Q2, Q9: every life of a run in a process of its own, from a start or a resume to the next stop.

tests/test_equalities.py stops and resumes at every step within one process, where something that a module remembers
could stand in for what a checkpoint lacks. Here nothing but the run folder outlives a stop.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mtl
from mtl.errors import OK, TERMINATED
from tests.experiment.test_resume import assert_same
from tests.support.lives import GROUPED, Life, begin_or_go_on
from tests.test_equalities import CASES, SHORT, SMALL, made_for

pytestmark = GROUPED


class Lives:
    """Runs of one recipe, and the processes that took part in them."""

    def __init__(self, case: str, folder: Path) -> None:
        self.made, self.folder = made_for(case, folder), folder
        self.pids: list[int] = []
        straight = self.life("straight", None)
        self.per_epoch, self.steps = straight["per_epoch"], straight["step"]

    def life(self, out: str, stop: int | None) -> dict[str, Any]:
        with Life(begin_or_go_on, self.made, self.folder / out, stop, folder=self.folder) as one:
            done = one.end()
        assert done.stderr == ""
        assert done.returncode == (OK if stop is None else TERMINATED)
        facts: dict[str, Any] = json.loads(done.stdout)
        self.pids.append(facts["pid"])
        return facts

    def stopped_at(self, *stops: int) -> None:
        """One run with all these stops, each of which must come where it should; it ends as the straight one."""
        before, at = len(self.pids), 0
        out = f"stopped-{before}"
        for stop in stops:
            facts = self.life(out, stop)
            assert (facts["started_at"], facts["step"]) == (at, stop)
            assert facts["said"][-1].startswith(f"stopped at step {stop}, which is saved; ")
            assert json.loads((self.folder / out / "run.json").read_bytes())["status"] == "interrupted"
            at = stop
        facts = self.life(out, None)
        assert facts["started_at"] == at
        assert [text for text in facts["said"] if not SMALL.match(text)] == []
        assert_same(self.folder / "straight", self.folder / out)
        assert len(self.pids) - before == len(stops) + 1
        assert len({os.getpid(), *self.pids}) == len(self.pids) + 1  # no process had a part in two lives

    def edges(self) -> list[int]:
        """The first steps, those around the end of an epoch, one in the middle, and the last."""
        last, of_epoch = self.steps, self.per_epoch
        return sorted({0, 1, of_epoch - 1, of_epoch, of_epoch + 1, last // 2 + 1, last - 1, last})

    def draws(self) -> Iterator[tuple[int, ...]]:
        """One, two, three and five steps to stop at."""
        draw = random.Random(5)
        for n in (1, 2, 3, 5):
            yield tuple(sorted(draw.sample(range(self.steps + 1), n)))


IN_EVERY_RUN = {"weighting-famo", "weighting-gradvac", "weighting-uncertainty", "sharing-ltb", "sharing-mmoe"}
"""Members that remember more than their parameters, one of each sort; the others take minutes together."""


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=pytest.mark.slow)
        if case.startswith(("weighting-", "sharing-")) and case not in IN_EVERY_RUN
        else case
        for case in CASES
    ],
)
def test_a_process_for_each_life(case: str, tmp_path: Path) -> None:
    """Stopped after the first step, before the evaluation of the first epoch, and within the second."""
    lives = Lives(case, tmp_path)
    _, first, _, end, _, middle, *_ = lives.edges()
    assert (first, end) == (1, lives.per_epoch)
    lives.stopped_at(first, end, middle)


def test_each_edge_alone(tmp_path: Path) -> None:
    lives = Lives("validation", tmp_path)
    for edge in lives.edges():
        lives.stopped_at(edge)
    assert len(lives.pids) == 1 + 2 * 8


def test_now_and_then(tmp_path: Path) -> None:
    """Once, twice, three and five times; twice within an epoch; and again before a step was done."""
    lives = Lives("validation", tmp_path)
    for stops in (*lives.draws(), (4, 5), (4, 4, 4), (9, 9)):
        lives.stopped_at(*stops)
    assert len(lives.pids) == 1 + (1 + 2 + 3 + 5 + 2 + 3 + 2) + 7


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_edge_of_every_case(case: str, tmp_path: Path) -> None:
    """Each alone, all of them in one run, and some drawn at random."""
    lives = Lives(case, tmp_path)
    edges = lives.edges()
    assert len(edges) >= 7
    for edge in edges:
        lives.stopped_at(edge)
    for stops in (*lives.draws(), tuple(edges)):
        lives.stopped_at(*stops)
    print(f"{case}: {len(lives.pids)} processes")


def test_the_case_above_has_what_may_be_forgotten() -> None:
    """Dropout, a validation split that selects, and stitches with a learning rate of their own."""
    made = made_for("validation", Path())
    assert SHORT["validation"]["data__split"] == {"validation": 0.25}
    assert made["model"]["head"]["dropout"] > 0
    assert mtl.load_recipe(made).model.sharing.lr_scale != 1

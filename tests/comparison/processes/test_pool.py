"""Local processes that make runs: what becomes of those that are killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtl.comparison.processes.pool import Job, Report, Workers
from mtl.errors import EnvironmentFault

ROOT = Path(__file__).parents[3]


def done(folder: Path, n: int, *jobs: Job) -> list[Report]:
    """The reports of jobs."""
    found: list[Report] = []
    with Workers(n, 1, [], folder, "tests.support.odd_worker") as workers:
        workers.do(jobs, found.append, lambda: True)
    return found


@pytest.fixture(autouse=True)
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_an_idle_process_may_end(tmp_path: Path) -> None:
    reports = done(tmp_path, 2, Job("long", {"do": "work", "seconds": 2}), Job("short", {"do": "end"}))
    assert [(report.job.name, report.ended) for report in reports] == [
        ("short", "finished"),
        ("long", "finished"),
    ]


def test_a_process_that_ended_idle_is_replaced(tmp_path: Path) -> None:
    jobs = [Job(f"job {i}", {"do": "end", "seconds": 0.1}) for i in range(5)]
    assert [report.job.name for report in done(tmp_path, 1, *jobs)] == [job.name for job in jobs]


def test_a_run_is_killed_three_times_at_most(tmp_path: Path) -> None:
    with pytest.raises(
        EnvironmentFault, match=r"it: its process ended 3 times without .*\(exit code 9\); see"
    ):
        done(tmp_path, 1, Job("it", {"do": "die"}))


def test_a_job_that_is_done_once_is_over_if_its_process_is_killed(tmp_path: Path) -> None:
    lost = [Job(f"trial {i}", {"do": "die"}, once=True) for i in range(4)]
    reports = done(tmp_path, 1, *lost, Job("last", {"do": "work"}, once=True))
    assert [report.job.name for report in reports] == ["last"]

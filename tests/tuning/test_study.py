"""The study: how it is joined, what counts in it, what is repeated, and what its draws depend on."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from mtl.errors import ENVIRONMENT, USER, EnvironmentFault, UserError
from mtl.tuning import study as studies
from mtl.tuning.study import (
    DEATHS,
    METRIC,
    REPEATS,
    SURPLUS,
    Address,
    bury,
    checked_url,
    fail_silent,
    first_number,
    join,
    n_begun,
    own_trials,
    repeat,
    require_same,
    running,
)


@pytest.fixture
def study_of(tmp_path: Path) -> Callable[..., optuna.Study]:
    def made(name: str = "it", **address: Any) -> optuna.Study:
        given = {"url": f"sqlite:///{tmp_path}/s.db", "study": name, "seed": 0} | address
        return join(Address(**given), True)

    return made


def draw(trial: optuna.Trial) -> float:
    return trial.suggest_float("a", 0, 1) + trial.suggest_float("b", 1e-3, 1, log=True)


def draws(study: optuna.Study) -> list[dict[str, Any]]:
    return [trial.params for trial in own_trials(study)]


def test_a_study_is_made_once_and_joined_again(study_of: Callable[..., optuna.Study]) -> None:
    study_of().optimize(draw, n_trials=1)
    assert [trial.number for trial in study_of().trials] == [0]
    assert study_of("other").trials == []
    assert study_of().direction == optuna.study.StudyDirection.MAXIMIZE


def test_optuna_says_nothing_and_keeps_its_level(
    study_of: Callable[..., optuna.Study], capsys: pytest.CaptureFixture[str]
) -> None:
    before = optuna.logging.get_verbosity()
    study_of()
    assert optuna.logging.get_verbosity() == before
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("text", ["sqlite://", "sqlite:///:memory:"])
def test_a_storage_in_memory_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--storage: a database in memory is lost with its process"):
        checked_url(text)


def test_a_storage_that_is_no_url_is_refused_without_showing_it() -> None:
    with pytest.raises(UserError, match="--storage: is not the URL of a database; write sqlite:///") as error:
        checked_url("user:secret@host")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "line", "code"),
    [
        ("nosuch://u:secret@h/d", "--storage: names a kind of database that SQLAlchemy lacks", USER),
        ("postgresql+pg8000://u:secret@h/d", "--storage: the driver of this database is not installed", ENVIRONMENT),
        ("sqlite:////nowhere/at/all/s.db", "--storage: cannot be used: unable to open database", ENVIRONMENT),
    ],
)  # fmt: skip
def test_a_storage_that_cannot_be_opened(
    url: str, line: str, code: int, study_of: Callable[..., optuna.Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtl.tuning.study.OPENINGS", 1)
    with pytest.raises(UserError, match=line) as error:
        study_of(url=url)
    assert error.value.code == code
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_database(tmp_path: Path, study_of: Callable[..., optuna.Study]) -> None:
    (tmp_path / "s.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(EnvironmentFault, match="--storage: cannot be used: file is not a database"):
        study_of()


def test_tables_of_another_version(tmp_path: Path, study_of: Callable[..., optuna.Study]) -> None:
    study_of()
    with sqlite3.connect(tmp_path / "s.db") as base:
        base.execute("update alembic_version set version_num = 'v99.0.0'")
        base.execute("update version_info set schema_version = 99")
    base.close()
    with pytest.raises(UserError, match=r"--storage: .* give another storage"):
        study_of()


def test_the_second_of_two_processes_that_make_the_tables_waits(
    study_of: Callable[..., optuna.Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, tries = optuna.storages.RDBStorage.__init__, [0]

    def racing(*given: Any, **options: Any) -> None:
        tries[0] += 1
        if tries[0] == 1:
            raise studies.SQLAlchemyError("table studies already exists")
        made(*given, **options)

    monkeypatch.setattr(optuna.storages.RDBStorage, "__init__", racing)
    assert study_of().trials == []
    assert tries == [2]


def test_what_all_trials_have_in_common(study_of: Callable[..., optuna.Study]) -> None:
    require_same(study_of(), {METRIC: "validation/mean/loss", studies.DATA: "a"})
    require_same(study_of(), {METRIC: "validation/mean/loss"})
    with pytest.raises(UserError, match="was begun with another metric, validation/mean/loss"):
        require_same(study_of(), {METRIC: "validation/mean/accuracy"})
    with pytest.raises(UserError, match="the study it was begun with other data; give another storage"):
        require_same(study_of(), {studies.DATA: "b"})


def test_draws_repeat_also_after_a_stop(study_of: Callable[..., optuna.Study]) -> None:
    straight, stopped = study_of("straight"), study_of("stopped")
    straight.optimize(draw, n_trials=14)
    stopped.optimize(draw, n_trials=12)

    def stops(trial: optuna.Trial) -> float:
        draw(trial)
        repeat(stopped, trial)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped.optimize(stops, n_trials=1)
    study_of("stopped").optimize(draw, n_trials=2)
    assert draws(stopped) == draws(straight)
    assert len(stopped.trials) == 15
    assert len({trial["a"] for trial in draws(straight)}) == 14
    other = study_of("other", seed=1)
    other.optimize(draw, n_trials=2)
    assert draws(other) != draws(straight)[:2]


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_what_counts(study_of: Callable[..., optuna.Study]) -> None:
    study = study_of()
    study.optimize(draw, n_trials=3)
    repeat(study, study.trials[1])
    assert [trial.number for trial in own_trials(study)] == [0, 2, 3]
    assert n_begun(study) == 2, "the repetition waits"
    surplus = study.ask()
    assert (surplus.number, first_number(surplus)) == (3, 1)
    surplus.set_user_attr(SURPLUS, True)
    assert [trial.number for trial in own_trials(study)] == [0, 2]


def lost(study: optuna.Study) -> None:
    """Begin a trial as a process does that is killed: it gave one sign of life."""
    trial = study.ask()
    draw(trial)
    study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_a_trial_whose_process_died_is_repeated_but_not_for_ever(
    study_of: Callable[..., optuna.Study],
) -> None:
    study = study_of(beat=1, grace=1)
    for number in range(2):
        lost(study)
        assert [trial.number for trial in running(study)] == [number]
        sleep(2.1)  # the clock of SQLite has whole seconds
        fail_silent(study)
        assert running(study) == []
    first, second = study.trials
    assert (first.state, second.state) == (TrialState.FAIL, TrialState.FAIL)
    assert second.user_attrs == {REPEATS: [0], DEATHS: 1}
    assert second.params == first.params
    assert [trial.number for trial in own_trials(study)] == [1], "it has failed for good"


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_a_trial_without_any_sign_of_life_is_buried_once(study_of: Callable[..., optuna.Study]) -> None:
    study = study_of()
    study.ask()
    dead = running(study)[0]
    fail_silent(study)
    assert len(running(study)) == 1, "Optuna does not notice it"
    bury(study, dead)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]
    assert n_begun(study) == 0

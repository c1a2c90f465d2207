"""One trial in this process: how it ends, what it leaves, and that it reads no row of the test split."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial
from sqlalchemy.exc import OperationalError

from mtl.dataset.batch import ResidentRows
from mtl.errors import EnvironmentFault, UserError
from mtl.recipe.keys.recipe import Recipe
from mtl.registry import load_plugin
from mtl.runs.logs import read_lines
from mtl.training.events import Event, Stepped
from mtl.tuning.folder import run_folder
from mtl.tuning.study import REPEATS, WHY, Address, join, n_begun, own_trials, repeat, storage_faults
from mtl.tuning.trial import TAKEN, Work
from tests.support.assertions import plugins_undone
from tests.support.listening import Watching
from tests.support.recipes import recipe

METRIC = "validation/mean/accuracy"
WILD = """
import mtl
from mtl.recipe.specs import WEIGHTINGS


@mtl.register_weighting("wild")
class Wild(WEIGHTINGS["sum"]):
    \"\"\"Weights that let every step explode.\"\"\"

    reference = "ours"

    def build(self, task_weights, is_quantity):
        return super().build(tuple(1e38 for _ in task_weights), is_quantity)
"""


def tuned(**changes: Any) -> Recipe:
    given: dict[str, Any] = {
        "data__split": {"validation": 0.25}, "train__epochs": 4, "tune": {"optimizer.lr": {"log_uniform": [1e-3, 1]}},
    }  # fmt: skip
    return recipe(**(given | changes))


@pytest.fixture
def work(tmp_path: Path) -> Callable[..., Work]:
    """The work of one process, on a study of its own."""

    def made(own: Recipe | None = None, trials: int = 10, **more: Any) -> Work:
        address = Address(f"sqlite:///{tmp_path}/study.db", "it", seed=0)
        return Work(own or tuned(), join(address, True), tmp_path, METRIC, trials, 1, **more)

    return made


def one(work: Work, listener: Watching | None = None) -> dict[str, Any]:
    return work.one(lambda _: listener or Watching())


def record_of(work: Work, number: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_folder(work.folder, number) / "run.json").read_bytes())
    return found


def rows_of(work: Work, number: int = 0) -> list[dict[str, Any]]:
    return read_lines(run_folder(work.folder, number) / "metrics.jsonl")


class StopsAt(Watching):
    """Raises an exception at a step."""

    def __init__(self, step: int, error: BaseException) -> None:
        super().__init__()
        self.step, self.error = step, error

    def stepped(self, event: Stepped) -> None:
        if self.trainer.progress.step == self.step:
            raise self.error


def test_a_trial_is_judged_by_its_best_evaluation(work: Callable[..., Work]) -> None:
    made = work()
    ended = one(made)
    values = [row[METRIC] for row in rows_of(made) if row["split"] == "validation"]
    assert len(values) == 4
    assert (ended["ended"], ended["trial"], ended["value"]) == ("complete", 0, max(values))
    (trial,) = made.study.trials
    assert list(trial.intermediate_values.items()) == list(enumerate(values, 1))


def test_with_the_last_step_selected_the_last_evaluation_counts(work: Callable[..., Work]) -> None:
    made = work(tuned(train__select="last"))
    made.study.enqueue_trial({"optimizer.lr": 1.0})
    ended = one(made)
    values = [row[METRIC] for row in rows_of(made) if row["split"] == "validation"]
    assert ended["value"] == values[-1] != max(values)


def test_no_row_of_the_test_split_is_read(work: Callable[..., Work], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[np.ndarray] = []
    batch = ResidentRows.batch

    def watched(rows: ResidentRows, which: np.ndarray) -> Any:
        asked.append(np.asarray(which))
        return batch(rows, which)

    monkeypatch.setattr(ResidentRows, "batch", watched)
    watching = Watching()
    made = work()
    assert one(made, watching)["ended"] == "complete"
    splits = watching.trainer.dataset.splits
    read = set(np.concatenate(asked).tolist())
    assert read >= set(splits["train"].tolist()) | set(splits["validation"].tolist())
    assert read.isdisjoint(splits["test"].tolist())
    assert {row["split"] for row in rows_of(made)} == {"train", "validation"}
    record = record_of(made)
    assert (record["status"], record["step"], record["results"]) == ("interrupted", 16, {})


def test_a_trial_that_is_worse_than_the_median_is_pruned(work: Callable[..., Work]) -> None:
    made = work()
    for lr in (0.1, 0.2, 0.3, 0.4, 0.5):
        distribution = {"optimizer.lr": optuna.distributions.FloatDistribution(1e-3, 1, log=True)}
        made.study.add_trial(
            create_trial(
                value=1.0, params={"optimizer.lr": lr}, distributions=distribution,
                intermediate_values=dict.fromkeys(range(1, 5), 1.0),
            )
        )  # fmt: skip
    ended = one(made)
    assert ended["ended"] == "pruned"
    assert made.study.trials[-1].state == TrialState.PRUNED
    assert sorted(made.study.trials[-1].intermediate_values) == [1, 2, 3], "not in its first evaluations"
    record = record_of(made, 5)
    assert (record["status"], record["epoch"], record["results"]) == ("interrupted", 3, {})


def test_a_trial_that_diverges_has_failed_with_its_reason(work: Callable[..., Work], tmp_path: Path) -> None:
    (tmp_path / "wild.py").write_text(WILD, encoding="utf-8")
    with plugins_undone():
        plugin = load_plugin(str(tmp_path / "wild.py"))
        made = work(tuned(tune={"weighting.kind": ["wild"]}), plugins=[plugin])
        ended = one(made)
    assert ended["ended"] == "unfit"
    assert "not finite" in ended["why"] or "inf" in ended["why"] or "nan" in ended["why"]
    assert made.study.trials[0].state == TrialState.FAIL
    assert made.study.trials[0].user_attrs[WHY] == ended["why"]
    assert (record_of(made)["status"], n_begun(made.study)) == ("diverged", 1)


def test_settings_that_do_not_fit_fail_alone(work: Callable[..., Work]) -> None:
    made = work(tuned(train__drop_last=True, tune={"train.batch_size": [1000, 8]}))
    made.study.enqueue_trial({"train.batch_size": "1000"})
    made.study.enqueue_trial({"train.batch_size": "8"})
    ended = one(made)
    assert ended["ended"] == "unfit"
    assert "train.batch_size" in ended["why"]
    assert not run_folder(made.folder, 0).exists()
    assert one(made)["ended"] == "complete"


def test_another_metric_in_a_trial_is_not_compared(work: Callable[..., Work]) -> None:
    made = work(tuned(tune={"tasks.a.metrics": [["balanced_accuracy"]]}))
    ended = one(made)
    assert ended["ended"] == "unfit"
    assert ended["why"].endswith(f"validation/mean/loss chooses in it, where {METRIC} does else")


def table(folder: Path) -> dict[str, Any]:
    rows = "".join(f"{i},{i % 7},{i % 2}\n" for i in range(80))
    (folder / "t.csv").write_text(f"x,y,label\n{rows}", encoding="utf-8")
    source = {"kind": "table", "path": str(folder / "t.csv"), "inputs": {"numeric": ["x", "y"]}}
    return {
        "data": {"source": source, "split": {"validation": 0.25, "test": 0.25}},
        "tasks": {"a": {"kind": "multiclass", "target": "label"}},
    }


def test_bad_data_end_the_sweep_and_cost_it_no_trial(work: Callable[..., Work], tmp_path: Path) -> None:
    made = work(tuned(**table(tmp_path)))
    assert one(made)["ended"] == "complete"
    text = (tmp_path / "t.csv").read_text(encoding="utf-8")
    (tmp_path / "t.csv").write_text(text.replace("\n3,", "\nthree,"), encoding="utf-8")
    with pytest.raises(UserError, match="'three' is not a number"):
        one(made)
    assert n_begun(made.study) == 1
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    ended = one(made)
    assert (ended["ended"], ended["trial"], n_begun(made.study)) == ("complete", 2, 2)
    assert ended["settings"] == made.study.trials[1].params


def test_a_fault_of_the_machine_within_a_run_ends_the_sweep(work: Callable[..., Work]) -> None:
    made = work()
    with pytest.raises(EnvironmentFault, match="no space left"):
        one(made, StopsAt(3, EnvironmentFault("disk", "no space left")))
    assert n_begun(made.study) == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a bug")])
def test_a_trial_that_is_broken_off_goes_on_and_ends_the_same(
    work: Callable[..., Work], error: BaseException, tmp_path: Path
) -> None:
    made = work()
    with pytest.raises(type(error)):
        one(made, StopsAt(6, error))
    broken, again = made.study.trials
    assert (broken.state, again.state, n_begun(made.study)) == (TrialState.FAIL, TrialState.WAITING, 0)
    watching = Watching()
    ended = one(made, watching)
    assert watching.trainer.progress.step == 16
    assert (ended["trial"], ended["settings"]) == (1, broken.params)
    assert not run_folder(made.folder, 1).exists(), "it has the folder of its first attempt"
    straight = Work(made.recipe, join(Address(f"sqlite:///{tmp_path}/o.db", "it", 0), True),
                    tmp_path / "other", METRIC, 10, 1)  # fmt: skip
    assert one(straight)["value"] == ended["value"]
    assert straight.study.trials[0].intermediate_values == made.study.trials[1].intermediate_values


def test_a_run_that_was_trained_to_its_end_goes_on_without_the_test_split(work: Callable[..., Work]) -> None:
    """Its process died after the last save, before it told its value."""
    made = work()
    value = one(made)["value"]
    repeat(made.study, made.study.trials[0], deaths=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mtl.tuning.trial._twin", lambda *_: None)
        ended = one(made)
    assert (ended["ended"], ended["value"]) == ("complete", value)
    assert (record_of(made)["status"], record_of(made)["results"]) == ("interrupted", {})


def test_a_run_whose_process_is_not_dead_is_left_alone(work: Callable[..., Work]) -> None:
    made = work()

    class TakesOver(Watching):
        def stepped(self, event: Stepped) -> None:
            if self.trainer.progress.step == 3:  # as after the sleep of a machine
                trial = made.study.trials[0]
                repeat(made.study, trial, deaths=1)
                made.study.tell(trial.number, state=TrialState.FAIL)
                with ThreadPoolExecutor(1) as other:  # a thread has a loop of Optuna's of its own
                    self.value = other.submit(one, made).result()["value"]

    watching = TakesOver()
    ended = one(made, watching)
    assert (ended["ended"], ended["why"]) == ("unfit", TAKEN)
    assert [trial.state for trial in made.study.trials] == [TrialState.FAIL, TrialState.COMPLETE]
    assert own_trials(made.study)[0].value == watching.value
    assert run_folder(made.folder, 1).is_dir()


def test_the_same_settings_are_not_trained_twice(work: Callable[..., Work]) -> None:
    made = work(tuned(tune={"optimizer.lr": [0.1]}))
    value = one(made)["value"]
    ended = one(made)
    assert (ended["ended"], ended["value"], ended["same"]) == ("complete", value, 0)
    assert not run_folder(made.folder, 1).exists()


def test_the_same_settings_fail_or_are_pruned_again(work: Callable[..., Work]) -> None:
    made = work(tuned(tune={"optimizer.lr": [0.1, 0.2]}))
    distribution = {"optimizer.lr": optuna.distributions.CategoricalDistribution(["0.1", "0.2"])}
    for state, lr in ((TrialState.PRUNED, "0.1"), (TrialState.FAIL, "0.2")):
        made.study.add_trial(
            create_trial(state=state, params={"optimizer.lr": lr}, distributions=distribution)
        )
        made.study.enqueue_trial({"optimizer.lr": lr})
    assert one(made)["ended"] == "pruned"
    failed = one(made)
    assert (failed["ended"], failed["why"]) == ("unfit", "its settings are those of trial 2, which failed")


def test_a_trial_too_many_trains_nothing(work: Callable[..., Work]) -> None:
    made = work(trials=1)
    assert one(made)["ended"] == "complete"
    assert one(made)["why"] == "another process began the last trial at the same moment"
    assert len(own_trials(made.study)) == 1
    assert not run_folder(made.folder, 1).exists()


def test_a_metric_without_a_value_gives_no_result(
    work: Callable[..., Work], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = work()
    monkeypatch.setattr("mtl.tuning.trial.Judge.value", None)
    assert one(made)["why"] == f"{METRIC} has no value in any evaluation"


def test_a_trial_keeps_the_checkpoints_that_a_resume_needs(work: Callable[..., Work]) -> None:
    made = work()
    one(made)
    steps = sorted(path.name for path in (run_folder(made.folder, 0) / "checkpoints").iterdir())
    values = [row[METRIC] for row in rows_of(made) if row["split"] == "validation"]
    best = 4 * (1 + values.index(max(values)))
    assert steps == sorted({f"step-{best:08d}", "step-00000016"})


def test_a_trial_that_another_process_makes_is_left_to_it(work: Callable[..., Work]) -> None:
    """Two processes took the same waiting trial."""
    made = work()

    class Second(Watching):
        def stepped(self, event: Stepped) -> None:
            if self.trainer.progress.step == 3:
                with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as other:
                    waiting = made.study._storage.get_trial_id_from_study_id_trial_number
                    patch.setattr(
                        made.study, "_pop_waiting_trial_id", lambda: waiting(made.study._study_id, 0)
                    )
                    self.said = other.submit(one, made).result()

    watching = Second()
    assert one(made, watching)["ended"] == "complete"
    assert watching.said == {"ended": "elsewhere", "trial": 0}
    assert [trial.state for trial in made.study.trials] == [TrialState.COMPLETE]


class Ignored(Watching):
    def on(self, event: Event) -> None: ...


def test_attempts_are_known_by_their_first_number(work: Callable[..., Work]) -> None:
    made = work()
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            one(made, StopsAt(5, KeyboardInterrupt()))
    assert made.study.trials[2].user_attrs[REPEATS] == [0, 1]
    assert one(made, Ignored())["trial"] == 2
    assert [path.name for path in (made.folder / "trials").iterdir()] == ["trial-0000"]


@pytest.mark.parametrize(
    "method", ["set_trial_intermediate_value", "set_trial_state_values", "create_new_trial"]
)
def test_a_storage_that_fails_meanwhile_is_one_line(
    method: str, work: Callable[..., Work], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = work()

    def failing(*args: Any, **options: Any) -> None:
        raise OperationalError("INSERT", {}, Exception("disk I/O error"))

    for storage in (optuna.storages.RDBStorage, optuna.storages._CachedStorage):
        monkeypatch.setattr(storage, method, failing)
    with (
        pytest.raises(EnvironmentFault, match=r"--storage: cannot be used: disk I/O error$"),
        storage_faults(),
    ):
        one(made)

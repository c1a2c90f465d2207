"""`train.select`: the best step, the last one, or a step for each task."""

import json
from pathlib import Path

import pytest

import mtl
from mtl.experiment.resume import resume
from mtl.training.progress import Progress
from mtl.training.selection import select

OF_TASKS = {"a": ("validation/a/accuracy", True), "b": ("validation/b/loss", False)}


def rows(**values: list[float | None]) -> list[dict[str, object]]:
    n = len(next(iter(values.values())))
    return [
        {"epoch": i + 1, **{f"validation/{key.replace('_', '/')}": own[i] for key, own in values.items()}}
        for i in range(n)
    ]


def test_each_task_has_its_own_best() -> None:
    progress = Progress()
    found = []
    for row in rows(
        mean_loss=[3.0, 2.0, 2.5, 2.6, 2.7],
        a_accuracy=[0.5, 0.4, 0.6, 0.6, 0.1],
        b_loss=[1.0, None, 0.5, 0.2, 0.3],
    ):
        progress.step += 10
        found.append(select(progress, row, ("validation/mean/loss", False), 2, OF_TASKS))
    assert found == [True, True, True, True, False]
    assert progress.bests == {
        "a": {"value": 0.6, "epoch": 3, "step": 30},
        "b": {"value": 0.2, "epoch": 4, "step": 40},
    }
    assert (progress.best_step, progress.best_steps, progress.stale) == (20, {20, 30, 40}, 1)


def test_early_stopping_waits_for_every_task() -> None:
    for of_tasks, stopped in ((OF_TASKS, False), ({}, True)):
        progress = Progress()
        for row in rows(mean_loss=[2.0, 3.0, 3.0], a_accuracy=[0.1, 0.2, 0.3], b_loss=[1.0, 1.0, 1.0]):
            progress.step += 1
            select(progress, row, ("validation/mean/loss", False), 2, of_tasks)
        assert progress.stopped is stopped


SMALL = [
    "train.epochs=6", "data.source.rows=1500", "data.source.test_rows=300", "data.split.validation=0.3",
    "schedule.kind=constant", "data.source.labelled.task2=0.4",
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    mtl.run("synthetic_stitch", [*SMALL, "train.select=best_of_each"], out=out)
    return out


def record_of(path: Path) -> dict[str, object]:
    values: dict[str, object] = json.loads((path / "run.json").read_bytes())
    return values


def test_results_of_each_task_are_those_of_its_step(whole: Path) -> None:
    record = record_of(whole)
    logged = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    validation = {row["step"]: row for row in logged if row["split"] == "validation"}
    results = record["task_results"]
    assert isinstance(results, dict)
    assert list(results) == ["first", "second", "scarce"]
    for task in ("first", "second"):
        best = max(validation.values(), key=lambda row: row[f"validation/{task}/accuracy"])
        assert results[task]["step"] == best["step"]
        assert results[task]["validation"]["accuracy"] == best[f"validation/{task}/accuracy"]
    assert results["scarce"]["step"] == max(validation)  # fewer than 200 labels there: the last step
    bootstrap = json.loads((whole / "bootstrap.json").read_bytes())["tasks"]
    assert {task: own["value"] for task, own in bootstrap.items()} == {
        task: own["test"]["accuracy"] for task, own in results.items()
    }
    details = json.loads((whole / "test_details.json").read_bytes())
    assert details["steps"] == {task: own["step"] for task, own in results.items()}
    assert list(details["tasks"]) == list(results)
    for task, own in details["tasks"].items():
        hits = sum(own["confusion"][k][k] for k in range(len(own["confusion"])))
        assert hits / own["n"] == pytest.approx(results[task]["test"]["accuracy"])


def test_the_one_model_is_that_of_a_run_without_it(whole: Path, tmp_path: Path) -> None:
    mtl.run("synthetic_stitch", SMALL, out=tmp_path / "plain")
    plain, record = record_of(tmp_path / "plain"), record_of(whole)
    assert (record["results"], record["selected"]) == (plain["results"], plain["selected"])
    assert "task_results" not in plain


def test_the_last_step_counts_if_the_recipe_says_so(whole: Path, tmp_path: Path) -> None:
    mtl.run("synthetic_stitch", [*SMALL, "train.select=last"], out=tmp_path / "last")
    record = record_of(tmp_path / "last")
    assert record["selected"] == {"step": record["step"], "epoch": 6}
    assert (
        record["results"]["test/scarce/accuracy"]
        == record_of(whole)["task_results"]["scarce"]["test"]["accuracy"]
    )  # type: ignore[index]


def test_a_resumed_run_ends_the_same(whole: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    class After:
        def on(self, event: object) -> None:
            if type(event).__name__ == "EpochEnded" and next(epochs) == 4:
                raise Stop

    epochs = iter(range(1, 10))
    with pytest.raises(Stop):
        mtl.run(
            "synthetic_stitch",
            [*SMALL, "train.select=best_of_each"],
            out=tmp_path / "run",
            listeners=[After()],
        )
    resume(tmp_path / "run")
    for key in ("results", "task_results", "selected"):
        assert record_of(tmp_path / "run")[key] == record_of(whole)[key]
    assert (tmp_path / "run/bootstrap.json").read_bytes() == (whole / "bootstrap.json").read_bytes()

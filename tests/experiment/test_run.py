"""`mtl.run`: the same bits each time, what a run folder holds, and which weights meet the test split."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mtl
from mtl.dataset.assemble import Dataset
from mtl.errors import ENVIRONMENT, NOT_FINITE, EnvironmentFault, NotFinite, UserError
from mtl.recipe.load import load_recipe, to_yaml
from mtl.runs import checkpoint, retention
from mtl.runs.record import Selected
from mtl.training.events import Ended, EpochEnded, Event, Stepped, Warned
from tests.support.listening import Watching
from tests.support.recipes import changed, linear, small, stitched

ROOT = Path(__file__).parents[2]

BASE = small(
    description="for tests",
    seed={"init": 1, "order": 2, "split": 3, "labels": 4},
    data__source={"kind": "synthetic", "rows": 60, "test_rows": 20, "features": 8, "noise": 0.1},
    task_defaults={"kind": "multiclass", "missing": "mask"},
    tasks={"a": {"target": "task0"}, "b": {"target": "task1"}},
    model__backbone__stages=linear(6, 5),
    model__sharing=stitched("fc1", "fc2"),
    model__head={"dropout": 0.2},
    optimizer={"kind": "adam", "lr": 0.01},
    schedule={"kind": "one_cycle"},
    train={"epochs": 3, "batch_size": 20, "threads": 1, "device": "cpu"},
)


def recipe(**changes: Any) -> dict[str, Any]:
    return changed(BASE, **changes)


def results(run: Path) -> dict[str, bytes]:
    """Everything of a run that must repeat to the byte."""
    paths = [run / name for name in ("metrics.jsonl", "sharing.jsonl", "metrics.csv", "recipe.resolved.yaml")]
    paths += [p for p in (run / "checkpoints").rglob("*") if p.is_file() and p.name != "manifest.json"]
    return {str(path.relative_to(run)): path.read_bytes() for path in paths}


def differing(one: Path, two: Path) -> set[str]:
    before, after = results(one), results(two)
    assert before.keys() == after.keys()
    assert len(before) == 4 + 4 * 3
    return {name for name in before if before[name] != after[name]}


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtl.report.plots.plot_run", lambda *_: [])


# --- the same bits ----------------------------------------------------------------------------------------


def test_twice_in_one_process(tmp_path: Path, no_plots: None) -> None:
    """Q14 and C10: other runs and draws between them leave no trace."""
    one = mtl.run(recipe(), out=tmp_path / "one")
    mtl.run(recipe(train__deterministic=False, seed=7), out=tmp_path / "between")
    random.seed(99)
    np.random.seed(99)
    torch.manual_seed(99)
    two = mtl.run(recipe(), out=tmp_path / "two")
    assert differing(tmp_path / "one", tmp_path / "two") == set()
    assert one.record.id != two.record.id


def test_in_new_processes_with_other_environments(tmp_path: Path, no_plots: None) -> None:
    """Q14 and Q15: hash seed, locale and time zone; both at once, and equal to this process."""
    path = tmp_path / "small.yaml"
    path.write_text(to_yaml(load_recipe(recipe())))
    environments = [
        {"PYTHONHASHSEED": "0", "LC_ALL": "C", "TZ": "UTC", "OMP_NUM_THREADS": "1"},
        {"PYTHONHASHSEED": "1", "LC_ALL": "C.UTF-8", "TZ": "Pacific/Auckland"},
    ]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "mtl", "run", str(path), "--quiet", "--out", str(tmp_path / f"{i}")],
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for i, environment in enumerate(environments)
    ]  # fmt: skip
    for process in processes:
        _, complaints = process.communicate()
        assert (process.returncode, complaints) == (0, "")
    mtl.run(path, out=tmp_path / "here")
    assert differing(tmp_path / "0", tmp_path / "1") == set()
    assert differing(tmp_path / "0", tmp_path / "here") == set()


@pytest.mark.parametrize("purpose", ["init", "order", "labels"])
def test_another_seed_gives_other_bits(purpose: str, tmp_path: Path, no_plots: None) -> None:
    mtl.run(recipe(), out=tmp_path / "one")
    mtl.run(recipe(**{f"seed__{purpose}": 77}), out=tmp_path / "two")
    changed = differing(tmp_path / "one", tmp_path / "two")
    assert changed >= {"metrics.jsonl", "sharing.jsonl", "checkpoints/step-00000009/model.safetensors"}


def test_the_split_seed_matters_only_where_rows_are_held_out(tmp_path: Path, no_plots: None) -> None:
    for name, options in {"none": {}, "some": {"data__split": {"validation": 0.5}}}.items():
        for seed in (1, 2):
            mtl.run(recipe(**options, seed__split=seed, train__batch_size=20), out=tmp_path / f"{name}{seed}")
    assert differing(tmp_path / "none1", tmp_path / "none2") == {"recipe.resolved.yaml"}
    logs = [(tmp_path / f"some{seed}" / "metrics.jsonl").read_bytes() for seed in (1, 2)]
    assert logs[0] != logs[1]


def test_the_order_of_keys_in_the_recipe_does_not_matter(tmp_path: Path, no_plots: None) -> None:
    """Q6: of all mappings but the tasks."""

    def turned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: item if key == "tasks" else turned(item) for key, item in reversed(value.items())}
        return value

    mtl.run(recipe(), out=tmp_path / "one")
    mtl.run(turned(recipe()), out=tmp_path / "two")
    assert differing(tmp_path / "one", tmp_path / "two") <= {"recipe.resolved.yaml"}


@pytest.mark.parametrize("every", [2, 3, 1000])
def test_saving_rarely_changes_no_bit(every: int, tmp_path: Path, no_plots: None) -> None:
    """Q3."""
    mtl.run(recipe(), out=tmp_path / "often")
    mtl.run(recipe(train__checkpoint={"every": {"epochs": every}}), out=tmp_path / "rarely")
    often, rarely = results(tmp_path / "often"), results(tmp_path / "rarely")
    assert len(rarely) < len(often)
    last = [
        f"checkpoints/step-00000009/{name}"
        for name in ("model.safetensors", "optim.safetensors", "state.json")
    ]
    for name in ("metrics.jsonl", "sharing.jsonl", "metrics.csv", *last):
        assert rarely[name] == often[name], name


class Everything:
    """Keeps every event, and draws random numbers: a listener may do as it likes."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def on(self, event: Event) -> None:
        self.events.append(event)
        torch.rand(7)


def test_being_watched_changes_no_bit(tmp_path: Path, no_plots: None) -> None:
    listener = Everything()
    result = mtl.run(recipe(), out=tmp_path / "watched", listeners=(listener,))
    mtl.run(recipe(), out=tmp_path / "alone")
    assert differing(tmp_path / "watched", tmp_path / "alone") == set()
    steps = [event for event in listener.events if isinstance(event, Stepped)]
    assert steps == [Stepped(epoch, step, 3, 20) for epoch in range(3) for step in (1, 2, 3)]
    of_one = ["Stepped"] * 3 + ["Saved", "EpochEnded"]
    assert [type(event).__name__ for event in listener.events] == ["Started", *of_one * 3, "Ended"]
    assert listener.events[-1] == Ended(result.metrics, 3, 9, result.record.baselines or {})


def test_each_listener_is_told_in_turn_after_it_was_written_down(tmp_path: Path, no_plots: None) -> None:
    told: list[tuple[str, int]] = []

    class Reader:
        def __init__(self, name: str) -> None:
            self.name = name

        def on(self, event: Event) -> None:
            if isinstance(event, EpochEnded):
                lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
                told.append((self.name, json.loads(lines[-1])["step"]))

    mtl.run(recipe(), out=tmp_path / "run", listeners=(Reader("one"), Reader("two")))
    assert told == [(name, step) for step in (3, 6, 9) for name in ("one", "two")]


# --- nothing global is left -------------------------------------------------------------------------------


def global_state() -> tuple[Any, ...]:
    return (
        torch.get_rng_state().numpy().tobytes(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_num_threads(),
        torch.backends.cudnn.benchmark,
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        random.getstate(),
        np.random.get_state()[1].tobytes(),
        os.getcwd(),
    )


@pytest.mark.parametrize("deterministic", [True, False])
def test_the_process_is_as_it_was(deterministic: bool, tmp_path: Path, no_plots: None) -> None:
    torch.use_deterministic_algorithms(not deterministic)
    torch.set_num_threads(2)
    before = global_state()
    mtl.run(recipe(train__deterministic=deterministic), out=tmp_path / "run")
    assert global_state() == before
    mtl.load(tmp_path / "run").evaluate()
    assert global_state() == before


def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    from mtl.experiment import run as experiment

    original: Callable[..., Dataset] = experiment.load_dataset

    def load(*args: Any) -> Dataset:
        dataset = original(*args)
        dataset.rows.inputs[:60, 0] = float("inf")
        return dataset

    monkeypatch.setattr(experiment, "load_dataset", load)


def test_a_run_that_diverges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned(monkeypatch)
    before = global_state()
    with pytest.raises(NotFinite, match="task 'a': loss is nan; task 'b': loss is nan at step 0") as caught:
        mtl.run(recipe(), out=tmp_path / "run")
    assert caught.value.code == NOT_FINITE
    assert global_state() == before
    assert json.loads((tmp_path / "run/run.json").read_bytes())["status"] == "diverged"
    assert checkpoint.steps(tmp_path / "run/checkpoints") == []


# --- what a run leaves ------------------------------------------------------------------------------------


def test_the_run_folder(tmp_path: Path) -> None:
    result = mtl.run(recipe(), ["train.monitor=test"], out=tmp_path / "run", plugins=["p.py"])
    names = {str(p.relative_to(tmp_path / "run")) for p in (tmp_path / "run").iterdir()}
    assert names == {
        ".lock", "run.json", "recipe.yaml", "recipe.resolved.yaml", "metrics.jsonl", "metrics.csv",
        "sharing.jsonl", "timings.jsonl", "test_details.json", "report.html", "checkpoints", "plots", "bootstrap.json",
    }  # fmt: skip
    assert {p.name for p in (tmp_path / "run/plots").iterdir()} == {
        "curves_loss.png", "curves_accuracy.png", "sharing.png", "sharing_history.png",
    }  # fmt: skip
    record = json.loads((tmp_path / "run/run.json").read_bytes())
    assert record == result.record.plain()
    assert set(record) == {
        "schema_version", "id", "name", "description", "status", "started", "recipe_sha256",
        "resolved_sha256", "seeds", "plugins", "plugin_sha256", "environment", "device", "threads",
        "processes", "data",
        "parameters", "classes", "towers", "step", "model", "model_sha256", "epoch", "results", "selected",
        "stopped_early", "skipped_steps", "baselines",
    }  # fmt: skip
    assert record["seeds"] == {"init": 1, "order": 2, "split": 3, "labels": 4}
    assert record["status"] == "finished"
    assert (record["step"], record["epoch"], record["plugins"]) == (9, 3, ["p.py"])
    assert (record["device"], record["threads"], record["skipped_steps"]) == ("cpu", 1, 0)
    assert record["data"]["rows"] == {"train": 60, "test": 20}
    assert record["data"]["generated"] is True
    assert record["data"]["best_possible_accuracy"] == {"a": 0.9, "b": 0.9}
    assert record["classes"] == {"a": ["0", "1"], "b": ["0", "1"]}
    assert record["towers"] == {"a": ["a"], "b": ["b"]}
    assert record["selected"] == {"step": 9, "epoch": 3}
    assert result.metrics == record["results"]
    assert len(record["id"]) == 36
    assert record["recipe_sha256"] == load_recipe(recipe(train__monitor="test")).sha256()
    assert set(record["environment"]) == {"mtl", "torch", "numpy", "python", "platform", "cpu_capability"}
    assert all(isinstance(value, str) and value for value in record["environment"].values())


def test_the_logs(tmp_path: Path, no_plots: None) -> None:
    mtl.run(recipe(data__split={"validation": 0.25}, train__batch_size=15), out=tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    splits = [(row["split"], row["epoch"], row["step"]) for row in rows[:-1]]
    assert splits == [(s, e, 3 * e) for e in (1, 2, 3) for s in ("train", "validation")]
    assert rows[-1]["split"] == "test"
    assert [row for row in rows if row["split"] == "test"] == rows[-1:], "the test split is read once"
    for row in rows:
        names = [name for name in row if "/" in name]
        assert names
        assert all(name.startswith(row["split"] + "/") for name in names)
        assert not any("second" in name or "time" in name for name in row)
    alphas = [json.loads(line) for line in (tmp_path / "run/sharing.jsonl").read_text().splitlines()]
    assert [(row["epoch"], row["step"]) for row in alphas] == [(0, 0), (1, 3), (2, 6), (3, 9)]
    assert alphas[0]["sharing"]["fc1"]["values"] == [
        [pytest.approx(0.9), pytest.approx(0.1)],
        [pytest.approx(0.1), pytest.approx(0.9)],
    ]
    timings = [json.loads(line) for line in (tmp_path / "run/timings.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in timings] == [1, 2, 3]
    assert set(timings[0]["seconds"]) == {"train", "evaluate", "save"}


def test_without_sharing_there_are_no_alphas(tmp_path: Path, no_plots: None) -> None:
    mtl.run(recipe(model__sharing={"kind": "none"}), out=tmp_path / "run")
    assert not (tmp_path / "run/sharing.jsonl").exists()


def test_the_best_epoch_meets_the_test_split(tmp_path: Path, no_plots: None) -> None:
    """Early stopping keeps the best epoch's checkpoint, and its weights are those that count."""
    made = recipe(
        data__split={"validation": 0.25}, train__batch_size=15, train__epochs=40,
        schedule={"kind": "constant"}, train__early_stopping={"patience": 5}, train__checkpoint={"keep": 2},
        optimizer={"kind": "adam", "lr": 0.1},
    )  # fmt: skip
    run = tmp_path / "run"
    result = mtl.run(made, out=run)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    scores = {row["step"]: row["validation/mean/accuracy"] for row in rows if row["split"] == "validation"}
    best = max(scores, key=lambda step: (scores[step], -step))
    assert result.record.stopped_early is True
    assert result.record.selected == Selected(step=best, epoch=best // 3)
    assert result.record.step == best + 15 < 120
    assert checkpoint.steps(run / "checkpoints") == sorted({best, best + 12, best + 15})
    assert (rows[-1]["split"], rows[-1]["step"], rows[-1]["epoch"]) == ("test", best, best // 3)
    again = mtl.load(run).evaluate()
    assert again == {name: value for name, value in rows[-1].items() if "/" in name}
    assert mtl.load(run).evaluate("validation")["validation/mean/accuracy"] == scores[best]
    assert {n: v for n, v in result.metrics.items() if n.startswith("test/")} == again
    assert result.metrics["validation/mean/accuracy"] == scores[best]


def test_the_test_split_selects_nothing(tmp_path: Path, no_plots: None) -> None:
    """Whatever the test split says, the run and its selected weights are the same."""
    made = recipe(data__split={"validation": 0.25}, train__batch_size=15, train__epochs=6)
    with_test = mtl.run(made | {"train": {**made["train"], "monitor": "test"}}, out=tmp_path / "watched")
    without = mtl.run(made, out=tmp_path / "blind")
    assert with_test.record.selected == without.record.selected
    assert with_test.metrics == without.metrics
    for name in ("model.safetensors", "optim.safetensors"):
        last = "checkpoints/step-00000018/" + name
        assert (tmp_path / "watched" / last).read_bytes() == (tmp_path / "blind" / last).read_bytes()


def test_load_run_gives_the_selected_weights(tmp_path: Path, no_plots: None) -> None:
    mtl.run(recipe(), out=tmp_path / "run")
    model = mtl.load(tmp_path / "run")
    assert model.recipe.sha256() == load_recipe(recipe()).sha256()
    from safetensors.torch import load_file

    tensors = load_file(tmp_path / "run/checkpoints/step-00000009/model.safetensors")
    assert all(torch.equal(value, tensors[name]) for name, value in model.built.model.state_dict().items())
    assert model.folder.record.status == "finished"


def test_evaluation_refuses_what_is_not_there(tmp_path: Path, no_plots: None) -> None:
    mtl.run(recipe(), out=tmp_path / "run")
    with pytest.raises(UserError, match=r"no split 'tests' \(did you mean 'test'\?\); one of train, test"):
        mtl.load(tmp_path / "run").evaluate("tests")
    with pytest.raises(UserError, match="no checkpoint found"):
        mtl.load(tmp_path)
    (tmp_path / "run/checkpoints/step-00000009/state.json").write_text("{}")
    with pytest.raises(UserError, match=r"step-00000009 is damaged \(state\.json: size differs\)"):
        mtl.load(tmp_path / "run").evaluate()


# --- refused before anything is written -------------------------------------------------------------------


def test_an_existing_run_is_refused(tmp_path: Path, no_plots: None) -> None:
    mtl.run(recipe(), out=tmp_path / "run")
    before = results(tmp_path / "run")
    with pytest.raises(UserError, match="a run is there already; mtl run --resume"):
        mtl.run(recipe(), out=tmp_path / "run")
    assert results(tmp_path / "run") == before


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(EnvironmentFault, match="cannot make the run folder: file exists") as caught:
        mtl.run(recipe(), out=tmp_path / "run")
    assert caught.value.code == ENVIRONMENT
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.parametrize(
    "wrong",
    [
        {"train__device": "cuda:9"},
        {"data__split": {"validation": 0.001}},
        {"train__drop_last": True, "train__batch_size": 61},
        {"schedule": {"kind": "constant", "warmup_steps": 9}},
    ],
)
def test_nothing_is_written_for_a_recipe_that_does_not_fit(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError):
        mtl.run(recipe(**wrong), out=tmp_path / "run")
    assert os.listdir(tmp_path) == []


def test_a_checked_recipe_takes_no_overrides(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="overrides are applied while a recipe is loaded"):
        mtl.run(load_recipe(recipe()), ["train.epochs=1"], out=tmp_path / "run")


def test_a_full_disk_stops_the_run_and_names_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_plots: None
) -> None:
    """F2 in the middle of a run; then there is room again, and it ends as if nothing had been."""
    mtl.run(recipe(), out=tmp_path / "straight")
    real = checkpoint.write_new

    def full(path: Path, data: Any) -> None:
        if "-00000006-" in path.parent.name and path.name == "optim.safetensors":
            real(path, b"".join(data)[:10])
            raise OSError(28, os.strerror(28))
        real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_new", full)
        text = "cannot write checkpoint at step 6: no space left on device; last good: step-00000003"
        with pytest.raises(EnvironmentFault, match=text):
            mtl.run(recipe(), out=tmp_path / "run")
    assert os.listdir(tmp_path / "run/checkpoints") == ["step-00000003"]
    mtl.resume(tmp_path / "run")
    assert differing(tmp_path / "straight", tmp_path / "run") == set()


def test_checkpoints_deleted_in_mid_run_are_no_end(tmp_path: Path, no_plots: None) -> None:
    """F24: the next save makes the folder again."""
    import shutil

    class Deleting(Watching):
        def epoch_ended(self, event: EpochEnded) -> None:
            if self.trainer.progress.epoch == 2:
                shutil.rmtree(tmp_path / "run" / "checkpoints")

    mtl.run(recipe(), out=tmp_path / "run", listeners=(Deleting(),))
    assert checkpoint.steps(tmp_path / "run/checkpoints") == [9]


def test_retention_that_fails_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_plots: None
) -> None:
    listener = Watching()
    monkeypatch.setattr(retention, "retain", lambda *_: "cannot delete an old checkpoint: Permission denied")
    mtl.run(recipe(), out=tmp_path / "run", listeners=(listener,))
    assert listener.warnings == ["cannot delete an old checkpoint: Permission denied"]  # once for the three


def test_predictions_that_are_not_finite_cost_a_run_its_pictures_alone(
    tmp_path: Path, no_plots: None
) -> None:
    """One test row has inputs near the largest float32, so that its logits are infinite or undefined."""
    lines = [f"{i / 40},{i % 7},{'ab'[i % 2]},train" for i in range(30)]
    lines += [f"{i / 40},{i % 7},{'ab'[i % 2]},test" for i in range(9)] + ["3e38,-3e38,a,test"]
    (tmp_path / "t.csv").write_text("x,z,y,part\n" + "\n".join(lines) + "\n")
    inputs = {"numeric": ["x", "z"]}
    made = small(
        data={
            "source": {"kind": "table", "path": str(tmp_path / "t.csv"), "inputs": inputs},
            "split": {"column": "part"},
        },
        tasks={"p": {"kind": "multiclass", "target": "y"}},
        model__backbone__stages=linear(64, 64, 64),
        model__sharing={"kind": "none"},
    )
    told: list[str] = []

    class Hears:
        def on(self, event: Event) -> None:
            told.extend([event.text] if isinstance(event, Warned) else [])

    result = mtl.run(made, out=tmp_path / "run", listeners=(Hears(),), report=False)
    assert result.record.status == "finished"
    assert result.metrics["test/p/loss"] is None
    assert [line for line in told if "are not finite numbers in the test split" in line]
    assert not (tmp_path / "run/test_details.json").exists()

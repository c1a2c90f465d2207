"""The closing lines of a run: a sentence per task, the run folder, and a command that works."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mtl.commands.closing import SENTENCES, closing_lines, in_words
from mtl.recipe.load import load_recipe
from mtl.recipe.specs import TASKS
from mtl.recipe.task_spec import TaskSpec
from mtl.training.events import Ended
from tests.support.assertions import Capture, called
from tests.support.command_line import good

PATH = Path("runs/small/a b")


def spec(kind: str, **keys: Any) -> TaskSpec:
    member = TASKS[kind]
    return member.model_validate({"kind": kind, **member.example, **keys})


def lines(
    values: dict[str, float | None], *overrides: str, layout: Any = None, plugins: tuple[str, ...] = ()
) -> list[str]:
    """What is told of synthetic tasks with these headlines."""
    tasks = "{" + ", ".join(f"{name}: {{kind: multiclass, target: task0}}" for name in values) + "}"
    recipe = load_recipe("synthetic_stitch", [f"tasks={tasks}", *overrides])
    trainer: Any = SimpleNamespace(
        recipe=recipe, dataset=SimpleNamespace(learned=SimpleNamespace(layout=layout))
    )
    metrics = {f"test/{task}/{recipe.tasks[task].headline}": value for task, value in values.items()}
    return list(closing_lines(trainer, PATH, Ended(metrics, 1, 2, {}, plugins)))


@pytest.mark.parametrize(
    ("kind", "keys", "value", "words"),
    [
        ("multiclass", {}, 0.9193, "92% of test labels predicted right"),
        ("multiclass", {}, 0.9996, "over 99.9% of test labels predicted right"),
        ("multiclass", {}, 0.0, "0% of test labels predicted right"),
        ("multiclass", {}, None, "accuracy is undefined for its test labels"),
        ("binary", {}, 0.78, "tells positive from negative rows in 78% of pairs (chance: 50%)"),
        (
            "multilabel",
            {},
            0.78,
            "tells rows with a label from rows without it in 78% of pairs (chance: 50%)",
        ),
        ("ordinal", {}, 0.4, "agrees with the test labels at 0.4000, where 0 is chance and 1 is perfect"),
        ("regression", {}, 0.43, "explains 43% of how the test labels vary"),
        ("regression", {}, -0.5, "r2 -0.5000, worse than the mean of the labels"),
        (
            "regression",
            {"metrics": ("rmse",)},
            2973641.7,
            "misses a test label by 2,974,000 (root mean square)",
        ),
        (
            "regression",
            {"metrics": ("mae",), "unit": "CHF"},
            7.2927,
            "misses a test label by 7.293 CHF on average",
        ),
        ("regression", {"metrics": ("mse",)}, 1e-9, "mse 1.000e-9"),
        ("multiclass", {"metrics": ("macro_f1",)}, 0.5, "macro f1 0.5000"),
    ],
)
def test_a_result_in_words(kind: str, keys: dict[str, Any], value: float | None, words: str) -> None:
    assert in_words(spec(kind, **keys), value) == words


def test_every_headline_has_a_sentence() -> None:
    headlines = {
        spec(kind).headline for kind in ("binary", "multiclass", "multilabel", "ordinal", "regression")
    }
    assert len(headlines) == 5
    assert headlines <= set(SENTENCES)


def test_of_many_tasks_the_best_and_the_worst_are_told() -> None:
    values: dict[str, float | None] = {f"t{k}": 0.5 + k / 100 for k in range(20)}
    values["t3"] = None
    assert lines(values)[:2] == [
        "best of 20, t19: 69% of test labels predicted right",
        "worst, t0: 50% of test labels predicted right",
    ]


def test_of_many_tasks_without_a_value_the_first_are_told() -> None:
    told = lines({f"t{k}": None for k in range(20)})
    assert told[5] == "t5: accuracy is undefined for its test labels"
    assert told[6].startswith("run folder: ")


@pytest.mark.parametrize(
    ("overrides", "layout", "command"),
    [
        (
            (),
            None,
            "mtl compare 'runs/small/a b/recipe.resolved.yaml'",
        ),
        ((), "a layout", "mtl predict 'runs/small/a b' --input FILE --output predicted.csv"),
        (("~model.sharing",), None, "mtl eval 'runs/small/a b'"),
    ],
)
def test_the_next_command(overrides: Sequence[str], layout: Any, command: str) -> None:
    assert lines({"a": 0.5, "b": 0.5}, *overrides, layout=layout)[-1].strip() == command
    told = lines({"a": 0.5, "b": 0.5}, *overrides, layout=layout, plugins=("my plugin.py",))[-1].strip()
    assert told == f"{command} --plugin 'my plugin.py'"


def test_the_next_command_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.chdir(tmp_path)
    small = ("data.source.rows=400", "data.source.test_rows=150", "train.epochs=1")
    command = good(called(capsys, "run", "synthetic_stitch", *small)).splitlines()[-1]
    arguments = shlex.split(command)[1:]
    assert arguments[:1] == ["compare"]
    done = called(capsys, *arguments, "--arms", "single,sharing", "--seeds", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("comparison: runs/synthetic_stitch/compare-")

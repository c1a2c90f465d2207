"""Every section of `python -m bench.speed` in a tiny setting: what it returns, and what its table says."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.speed import cases, main, measure
from bench.speed.render import SECTIONS, section_of
from bench.speed.sections import accuracy, busy, memory, predict, run, scaling, start, steps
from mtl.experiment.run import prepare
from mtl.training import devices
from mtl.training.events import EpochEnded, Stepped

SMALL = "age_gender_stitch"


def is_spread(own: dict[str, float]) -> bool:
    return 0 < own["least"] <= own["median"]


def cells(table: str) -> list[list[str]]:
    """The cells of a table of Markdown, without its second line, which only divides."""
    lines = [[each.strip() for each in line.strip("|\n").split("|")] for line in table.strip().splitlines()]
    assert {len(line) for line in lines} == {len(lines[0])}
    assert set(lines[1]) == {"---"}
    return [lines[0], *lines[2:]]


def test_every_section_is_on_disk_and_has_rounds_and_a_title() -> None:
    files = {path.stem for path in Path(main.__file__).parent.joinpath("sections").glob("*.py")}
    assert files == set(SECTIONS)
    assert set(main.DEFAULT) == files - {"accuracy"}
    for name in SECTIONS:
        module = section_of(name)
        assert module.ROUNDS >= 1
        assert module.TITLE
    with pytest.raises(SystemExit, match="no section 'speed': steps, run"):
        section_of("speed")


def test_steps() -> None:
    found = steps.section(2, [SMALL])
    own = found[SMALL]
    assert own["threads"] == 1
    assert set(own["median"]) == {"mtl", "plain", "floor"}
    assert all(0 < own["least"][loop] <= ms for loop, ms in own["median"].items())
    _, row = cells(steps.table(found))
    assert row[0] == SMALL
    assert float(row[5]) == pytest.approx(own["median"]["plain"] / own["median"]["mtl"], abs=0.006)
    assert float(row[6]) == pytest.approx(own["median"]["mtl"] / own["median"]["floor"], abs=0.006)


def test_the_customers_are_among_the_steps_and_have_their_recipe_from_init() -> None:
    assert "customers" in cases.CASES
    recipe = cases.customers(600)
    assert (recipe.name, len(recipe.tasks), recipe.train.batch_size > 1) == ("customers", 8, True)
    assert cases.customers(600).model_dump() == recipe.model_dump()  # of the same table


def test_loops_take_turns_and_only_the_last_rounds_count() -> None:
    taken: list[str] = []

    def loop(name: str) -> Iterator[None]:
        while True:
            taken.append(name)
            yield

    found = measure.timed({"a": loop("a"), "b": loop("b")}, rounds=2, warmup=1)
    assert "".join(taken) == "abbaab"
    assert {name: len(ms) for name, ms in found.items()} == {"a": 2, "b": 2}
    taken.clear()
    measure.timed({"a": loop("a"), "b": loop("b")}, rounds=1, warmup=0, settle=2)
    assert "".join(taken) == "aaabbb"


def test_run_takes_a_bare_step_for_each_of_its_own_and_leaves_the_first_epoch_out() -> None:
    found = run.section(1, [SMALL])
    own = found[SMALL]
    assert own["epochs"] == run.EPOCHS[SMALL]
    assert all(is_spread(own[what]) for what in ("run", "bare", "ratio"))
    _, row = cells(run.table(found))
    assert row[:2] == [SMALL, str(own["epochs"])]
    assert row[5] == "1.10"


def test_the_time_of_bare_steps_is_taken_off_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 5.0, 7.0])
    monkeypatch.setattr(run, "perf_counter", lambda: next(clock))
    taken = iter([None, None])
    turns = run.Turns(taken)
    for step in (1, 2):
        turns.on(Stepped(0, step, 2, 8))
    turns.on(EpochEnded([], 2, 16, {"train": 7.5, "evaluate": 0.25}, False, True))
    assert turns.epochs == [(4.5, 3.0, 0.25)]
    assert next(taken, "all") == "all"


def test_a_run_that_is_timed_has_full_batches_only() -> None:
    recipe = run.recipe_of("fashion_stitch", 3)
    assert (recipe.train.epochs, recipe.train.drop_last) == (3, True)
    assert getattr(recipe.data.source, "rows", None) == run.BATCHES * recipe.train.batch_size
    customers = run.recipe_of("customers", 2)
    assert customers.train.early_stopping is None
    assert customers.data.source == cases.customers().data.source


def test_scaling() -> None:
    found = scaling.section(1, tasks=(2, 3), batches=(16, 32), rows=(500, 1_000))
    assert {what: list(own) for what, own in found.items()} == {
        "tasks": ["2", "3"], "batch": ["16", "32"], "rows": ["500", "1000"],
    }  # fmt: skip
    assert all(is_spread(ms) for own in found.values() for ms in own.values())
    tables = scaling.table(found).split("\n\n")
    assert len(tables) == 3
    _, first, second = cells(tables[0])
    assert (first[0], first[3], second[0]) == ("2", "1.00", "3")
    per_task = found["tasks"]["3"]["median"] / 3 / (found["tasks"]["2"]["median"] / 2)
    assert float(second[3]) == pytest.approx(per_task, abs=0.006)


def test_memory_counts_each_storage_once() -> None:
    recipe = cases.mlp(2, rows=500)
    with devices.settings(True):
        trainer, _ = prepare(recipe)
        loop = cases.steps_of(trainer)
        next(loop)
        own = memory.needed(trainer, loop)
    model, rows = trainer.built.model, trainer.dataset.rows
    n = sum(p.numel() for p in model.parameters())
    assert own["gradients"] == 4 * n
    assert own["weights"] == 4 * n + sum(b.nbytes for b in model.buffers())
    assert 8 * n <= own["optimizer"] <= 8 * n + 8 * len(list(model.parameters()))  # and counts of steps
    assert own["data"] >= rows.inputs.nbytes
    features = 4 * recipe.train.batch_size * 2 * 32  # of both towers after one stage
    assert 3 * features < own["activations"] < 40 * features


def test_start_counts_the_time_and_cpu_of_a_child() -> None:
    slow = "import time; time.sleep(0.2); sum(range(10**7))"
    found = start.section(1, {start.IMPORT: ["-c", slow], "mtl --help": ["-m", "mtl", "--help"]})
    assert found[start.IMPORT]["wall"]["median"] > 0.2
    assert 0 < found[start.IMPORT]["cpu"]["median"] < found[start.IMPORT]["wall"]["median"]
    _, first, second = cells(start.table(found))
    assert (first[2], first[4]) == ("1.00", "1.00")
    assert second[0] == "`mtl --help`"


def test_accuracy_ends_a_run_at_its_goal() -> None:
    tiny = ["data.source.sample=true", "train.batch_size=16", "train.threads=1"]
    found = accuracy.section(1, 0.2, tiny)
    assert found["accuracy"] >= 0.2 > max([0.0, *(value for _, value in found["evaluations"][0][:-1])])
    assert found["seconds"]["median"] == found["evaluations"][0][-1][0]
    _, row = cells(accuracy.table(found))
    assert float(row[5]) == pytest.approx(found["published"] / found["seconds"]["median"], abs=0.5)
    with pytest.raises(RuntimeError, match=r"fashion_fast did not reach 1\.1"):
        accuracy.section(1, 1.1, [*tiny, "train.epochs=1"])


@pytest.mark.slow
def test_predict() -> None:
    found = predict.section(1, rows=(2_000, 4_000))
    assert list(found) == ["2000", "4000"]
    assert 1.8 < found["4000"]["bytes"] / found["2000"]["bytes"] < 2.2
    assert all(is_spread(own["seconds"]) and own["peak"]["least"] > 1e8 for own in found.values())
    _, first, second = cells(predict.table(found))
    assert (first[0], first[5], second[0]) == ("2,000", "-", "4,000")


@pytest.mark.slow
def test_memory() -> None:
    found = memory.section(1, case=SMALL, steps=2)
    assert set(found["grown"]) == set(memory.SETTINGS)
    for own in found["grown"].values():
        assert 0 < own["imported"]["median"] <= own["prepared"]["median"] <= own["trained"]["median"] < 1e9
    parts, rows = (cells(table) for table in memory.table(found).split("\n\n"))
    assert float(parts[1][-1]) == pytest.approx(sum(map(float, parts[1][:-1])), abs=0.4)
    assert len(rows) == 3


@pytest.mark.slow
def test_busy() -> None:
    found = busy.section(1, case=SMALL, levels=(0, 1))
    assert list(found) == ["0", "1"]
    assert all(is_spread(own[what]) for own in found.values() for what in ("step", "run"))
    _, quiet, beside = cells(busy.table(found))
    assert (quiet[2], quiet[5], quiet[3], quiet[6]) == ("1.00", "1.00", "1.0", "1.0")
    assert float(beside[3]) >= 1


def test_the_command_writes_results_beside_those_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results" / "here.json"
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def called(*arguments: str) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", ["bench.speed", *arguments, "--rounds", "1", "--json", str(path)])
        main.main()
        written: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return written

    first = called("--sections", "steps", "--cases", SMALL)
    assert capsys.readouterr().out.startswith("## A training step\n\n| case | threads |")
    assert first["machine"] == measure.machine()
    assert list(called("--sections", "steps", "--cases", "mlp_2")["steps"]) == [SMALL, "mlp_2"]
    elsewhere = {**first, "machine": {**first["machine"], "processor": "another"}}
    path.write_text(json.dumps(elsewhere), encoding="utf-8")
    assert list(called("--sections", "steps", "--cases", "mlp_2")["steps"]) == ["mlp_2"]


@pytest.mark.parametrize(
    ("processor", "instructions", "cores", "name"),
    [
        ("AMD EPYC", "AVX512", 2, "epyc_avx512_2_cores"),
        ("Intel(R) Xeon(R) CPU @ 2.20GHz", "AVX2", 1, "xeon_avx2_1_core"),
        ("Apple M2 Pro", "DEFAULT", 10, "m2_pro_default_10_cores"),
        ("", "DEFAULT", 4, "processor_default_4_cores"),
    ],
)
def test_results_are_called_after_the_machine(
    processor: str, instructions: str, cores: int, name: str
) -> None:
    assert measure.name_of({"processor": processor, "instructions": instructions, "cores": cores}) == name


def test_threads_change_with_the_loop() -> None:
    seen: list[int] = []

    def loop() -> Iterator[None]:
        while True:
            seen.append(torch.get_num_threads())
            yield

    with devices.settings(True):
        measure.timed({str(n): scaling.with_threads(loop(), n) for n in (1, 2)}, rounds=2, warmup=0, settle=1)
    assert seen == [1, 1, 2, 2, 2, 2, 1, 1]

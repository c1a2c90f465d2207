"""Two processes train what one process trains: the same losses at every step, the same metrics, the same weights."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from mtl.experiment.run import run
from tests.faults.whole import final_bytes
from tests.support.ranks import ROOT, ended, ranks_of, told_by_mtl, torchrun, wait_for_lock

SHORT = ("train.max_steps=50", "~train.epochs", "train.batch_size=40", "train.threads=1", "train.device=cpu")
EACH_STEP = ("data.split.validation=0.1", "train.evaluate_every.steps=1", "train.checkpoint.every.steps=25")
PLAIN = "model.backbone.norm.kind=layer"
NO_REPORT = ("--no-report", "--quiet")
WAYS: dict[str, tuple[str, ...]] = {
    "dropout and missing labels": (PLAIN, "model.head.dropout=0.3"),
    "batch norm over all rows": ("model.backbone.norm.sync=true", "model.backbone.norm.debias=true"),
    "losses weighted by what they are": (PLAIN, "weighting.kind=uncertainty", "tasks.first.weight=0.5"),
    "losses seen again": (PLAIN, "weighting.kind=famo", "~data.source.labelled"),
    "gradients of tasks": (PLAIN, "weighting.kind=pcgrad"),
    "gradients in an order that is drawn": (
        *(PLAIN, "weighting.kind=pcgrad", "model.head.dropout=0.3"),
        "train.batch_size=771",  # the last batch has 3 rows, and all of them are in one process
    ),
    "parts that count as one": (PLAIN, "train.accumulate=2", "train.clip_norm=0.5"),
    "a penalty": (PLAIN, "model.sharing={kind: soft, penalty: 0.1}"),
}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("together")


def trained(run_folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]


def require_alike(one: Path, two: Path) -> None:
    """The same rows of metrics, each loss to 1e-6; the same weights to the rounding of float32."""
    lines, others = trained(one), trained(two)
    assert len(lines) == len(others) >= 50
    for line, other in zip(lines, others, strict=True):
        assert line.keys() == other.keys()
        for name, value in line.items():
            if name.endswith("/loss_weight"):
                assert other[name] == pytest.approx(value, rel=1e-5), (line["step"], name)
            elif isinstance(value, float) and name.endswith("/loss"):
                assert other[name] == pytest.approx(value, rel=1e-6, abs=1e-6), (line["step"], name)
            elif isinstance(value, float):
                # a metric of classes moves by a row's share where a probability lies at its threshold
                assert other[name] == pytest.approx(value, rel=1e-3, abs=5e-3), (line["step"], name)
            else:
                assert other[name] == pytest.approx(value, rel=1e-6), (line["step"], name)
    newest = sorted((one / "checkpoints").iterdir())[-1].name
    weights, found = (load_file(run / "checkpoints" / newest / "model.safetensors") for run in (one, two))
    for name, tensor in weights.items():
        assert tensor.float().sub(found[name].float()).abs().max() < 2e-5, name


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_train_what_one_trains(way: str, work: Path) -> None:
    changes = (*SHORT, *EACH_STEP, *WAYS[way])
    one, two = work / f"{way} 1", work / f"{way} 2"
    run("synthetic_stitch", changes, out=one, report=False)
    code, _, told = ended(torchrun("run", "synthetic_stitch", *changes, "--out", str(two), *NO_REPORT))
    assert code == 0, told
    require_alike(one, two)
    record = json.loads((two / "run.json").read_text())
    assert (record["processes"], record["status"]) == (2, "finished")
    assert not [line for line in told_by_mtl(told) if line.startswith("error")]


def test_a_run_of_two_goes_on_with_one_and_with_two(work: Path) -> None:
    """After a stop in the middle: the same bits by as many processes, the same losses by another number."""
    changes = ("synthetic_stitch", *SHORT, *EACH_STEP, "train.checkpoint.every.steps=10")
    changes = (*changes, "model.backbone.norm.sync=true")  # else one process normalizes by other rows
    straight, stopped = work / "straight", work / "stopped"
    assert ended(torchrun("run", *changes, "--out", str(straight), *NO_REPORT))[0] == 0
    process = torchrun("run", *changes, "--out", str(stopped), *NO_REPORT)
    try:
        wait_for_lock(process, stopped)
        while not list((stopped / "checkpoints").glob("step-0000001*")):
            time.sleep(0.01)
        os.kill(ranks_of(process)[1], signal.SIGTERM)  # any rank may be told to stop
    finally:
        _, _, told = ended(process)
    lines = told_by_mtl(told)
    assert len(lines) == 2, told  # where it stopped and how it goes on, and that it was interrupted
    step = int(re.search(r"stopped at step (\d+)", lines[0])[1])  # type: ignore[index]
    assert 10 <= step < 50
    alone = work / "alone"
    shutil.copytree(stopped, alone)
    code, _, told = ended(torchrun("run", "--resume", str(stopped), *NO_REPORT))
    assert code == 0, told
    assert final_bytes(stopped) == final_bytes(straight)
    code, _, told = ended(torchrun("run", "--resume", str(alone), *NO_REPORT, processes=1))
    assert code == 0, told
    assert "processes 2 -> 1" in told
    require_alike(straight, alone)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_lost_rank_ends_all_with_a_line_that_names_it(rank: int, work: Path) -> None:
    out = work / f"lost {rank}"
    process = torchrun("run", "synthetic_stitch", "train.epochs=10000", "--out", str(out), *NO_REPORT)
    try:
        wait_for_lock(process, out)
        while not (out / "metrics.jsonl").exists() or len(trained(out)) < 1:
            time.sleep(0.01)
        os.kill(ranks_of(process)[rank], signal.SIGKILL)
        at = time.monotonic()
        code, _, told = ended(process, 60)
    except BaseException:
        ended(process, 0)
        raise
    assert time.monotonic() - at < 30
    (line,) = [line for line in told_by_mtl(told) if line.startswith("error")]
    assert f"rank {rank} of 2 (process " in line
    assert f"--resume {out}" in line
    assert code != 0
    if rank:
        assert json.loads((out / "run.json").read_text())["status"] == "interrupted"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (("train.compile=true",), "train.compile: is for one process, and 2 processes train together"),
        (
            ("weighting={kind: mgda, grads_on: features}",),
            "weighting.grads_on: features of all rows are in one",
        ),
        (("model.backbone.norm.sync=true", "train.batch_size=2"), "norm.sync needs two of each process of 2"),
        (
            ("train.device=cuda:3",),
            "train.device: several processes train together, and cuda:3 is one device",
        ),
        (("optimizer.lr=-1",), "optimizer.lr: "),
        (("phases={a: {}, b: {}}",), "phases: they train in one process each"),
    ],
)
def test_a_refusal_is_told_once_and_nothing_is_written(
    changes: tuple[str, ...], expected: str, work: Path
) -> None:
    out = work / "refused"
    code, printed, told = ended(torchrun("run", "synthetic_stitch", *changes, "--out", str(out)))
    (line,) = told_by_mtl(told)
    assert expected in line
    assert printed == ""
    assert code != 0
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["layer", "none"])
def test_two_processes_train_the_towers_of_images(norm: str, work: Path) -> None:
    """fashion_fast without batch norm: its losses differ from those of one process as those of two threads do.

    Its first steps multiply any difference by ten each two steps or so, whatever its origin.
    """
    changes = ("train.max_steps=50", "~train.epochs", "train.device=cpu", "data.split={validation: 0.01}")
    changes = (
        *changes,
        "train.evaluate_every.steps=1",
        "~train.monitor",
        f"model.backbone.norm={{kind: {norm}}}",
    )
    one, other, two = (work / f"fashion {norm} {way}" for way in ("1", "threads", "2"))
    run("fashion_fast", (*changes, "train.threads=1"), out=one, report=False)
    run("fashion_fast", (*changes, "train.threads=2"), out=other, report=False)
    arguments = ("run", "fashion_fast", *changes, "train.threads=1", "--out", str(two), *NO_REPORT)
    code, _, told = ended(torchrun(*arguments), 900)
    assert code == 0, told
    found, rounding = differences(one, two), differences(one, other)
    assert max(found[:3]) < 1e-6
    assert max(found) < 10 * max(rounding)


def differences(one: Path, two: Path) -> list[float]:
    """The largest difference of a loss of validation after each step."""
    pairs = zip(trained(one), trained(two), strict=True)
    return [
        max(abs(line[name] - other[name]) for name in line if name.endswith("/loss"))
        for line, other in pairs
        if line["split"] == "validation"
    ]


def test_two_processes_train_a_table_with_missing_labels_and_weights(work: Path) -> None:
    """Eight tasks of all kinds, 40% of labels missing, a weight for each row and for each task."""
    make = [sys.executable, str(ROOT / "examples" / "make_customers.py"), "customers.csv", "--rows", "3000"]
    subprocess.run([*make, "--missing", "0.4"], cwd=work, check=True, capture_output=True)
    targets = "segment,channel,churned,clicked,satisfaction,interests,spend,visits"
    with (work / "customers.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (work / "customers.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "weight"])
        writer.writeheader()
        writer.writerows({**row, "weight": f"{0.25 + i % 7 / 3:.3f}"} for i, row in enumerate(rows))
    init = [
        sys.executable,
        "-m",
        "mtl",
        "init",
        "customers.csv",
        "-o",
        "customers.yaml",
        "--targets",
        targets,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(init, cwd=work, check=True, capture_output=True, env=environment)
    changes = (*SHORT, "train.evaluate_every.steps=1", "~train.early_stopping")
    changes = (*changes, "task_defaults={sample_weight: weight}", "tasks.spend.weight=0.3")
    one, two = work / "customers 1", work / "customers 2"
    run(str(work / "customers.yaml"), changes, out=one, report=False)
    recipe = str(work / "customers.yaml")
    code, _, told = ended(torchrun("run", recipe, *changes, "--out", str(two), *NO_REPORT))
    assert code == 0, told
    require_alike(one, two)

"""What is told of a network before it is trained: its size, which rows may decide, and the memory that it takes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mtl.experiment.run
from mtl.console import file_size
from mtl.data.memory import is_out_of_memory
from mtl.errors import ENVIRONMENT, OK, EnvironmentFault
from mtl.experiment.trial import build_and_try, preview, require_room
from tests.support.assertions import Capture, called, refused
from tests.support.recipes import changed, linear, recipe, stitched, table, write
from tests.support.tables import write_rows

CPU = torch.device("cpu")
N = 120


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mtl.report.plots.plot_run", lambda *_: None)
    write_rows(
        tmp_path / "t.csv",
        [
            {
                "x": i,
                "gap": "" if i % 5 == 0 else i,
                "city": "abcdefg"[i % 7],
                "kind": i % 4,
                "word": "uvw"[i % 3],
            }
            for i in range(N)
        ],
    )
    return tmp_path


WORD = {"word": {"kind": "multiclass", "target": "word"}}
MASKED = {"kind": "regression", "target": "gap", "missing": "mask"}
CITY = {"kind": "table", "path": "t.csv", "inputs": {"numeric": ["x"], "categorical": ["city"]}}
GAP = {"numeric": ["x", "gap"], "missing": "mean", "indicator": True}
SIZES: dict[str, tuple[dict[str, Any], list[int]]] = {
    "classes of text": ({"tasks": WORD}, [3]),
    "classes of numbers": ({"tasks": {"kind": {"kind": "multiclass", "target": "kind"}, **WORD}}, [4, 3]),
    "categories": ({"data__source": CITY, "tasks": {"gap": MASKED}}, [1]),
    "embedded categories": ({"data__source": changed(CITY, inputs__embedding=3), "tasks": WORD}, [3]),
    "indicators": ({"data__source": table("t.csv") | {"inputs": GAP}, "tasks": WORD}, [3]),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "outputs"), SIZES.values(), ids=SIZES)
def test_the_summary_has_the_size_of_the_run(
    changes: dict[str, Any], outputs: list[int], folder: Path, capsys: Capture
) -> None:
    given = {"data": {"source": table("t.csv", "x"), "split": {"test": 0.25}}} | {
        "model__sharing": stitched("fc1")
    }
    write(folder, **{**given, **changes})
    done = called(capsys, "run", "r.yaml", "--out", "run", "--quiet")
    assert (done.returncode, done.stderr) == (OK, "")
    record = json.loads((folder / "run" / "run.json").read_bytes())
    assert [len(names) for names in record["classes"].values()] == outputs
    for command in (["summary", "r.yaml"], ["run", "--dry-run", "r.yaml"]):
        done = called(capsys, *command)
        assert (done.returncode, done.stderr) == (OK, "")
        assert (
            f"{len(outputs)} tower{'s' * (len(outputs) > 1)}, {record['parameters']:,} parameters\n"
            in done.stdout
        )
        rows = [line.split() for line in done.stdout.splitlines()]
        of_tasks = {row[0]: int(row[3]) for row in rows if len(row) == 6 and row[0] in record["classes"]}
        assert of_tasks == dict(zip(record["classes"], outputs, strict=True))
        assert [row[1] for row in rows if row[:1] == ["all"]] == [f"{record['parameters']:,}"]
    said = called(capsys, "validate", "r.yaml").stdout
    assert re.fullmatch(r"ok r.yaml: \d tasks?, \d towers?, parameters known once the rows are read\n", said)
    built, header, notices = preview(mtl.load_recipe(Path("r.yaml")))
    assert all(parameter.is_meta for parameter in built.model.parameters())
    assert header.layout is not None
    assert not notices


def test_rows_are_read_only_where_they_decide(folder: Path, capsys: Capture) -> None:
    """The second row is faulty; nothing of the network depends on it."""
    given: dict[str, Any] = {"source": table("t.csv", "x"), "split": {"test": 0.25}}
    write(folder, data=given, tasks={"gap": {"kind": "regression", "target": "gap"}})
    (folder / "t.csv").write_text("x,gap\n1,1\n1,2,3\n", encoding="utf-8")
    assert called(capsys, "summary", "r.yaml").stdout.startswith("small: 1 task, 1 tower, ")
    assert called(capsys, "validate", "r.yaml").stdout == "ok r.yaml: 1 task, 1 tower, 17 parameters\n"
    write(folder, data=given, tasks={"gap": {"kind": "multiclass", "target": "gap"}})
    for command in (["summary", "r.yaml"], ["run", "--dry-run", "r.yaml"]):
        line = "r.yaml:3:16: data.source: t.csv:row 3: 3 fields, header has 2"
        refused(lambda c=command: called(capsys, *c), folder, [line])


def test_generated_and_shipped_rows_need_not_be_read(capsys: Capture) -> None:
    for name in ("fashion_fast", "synthetic_stitch"):
        assert re.search(r", [\d,]{5,} parameters\n", called(capsys, "validate", name).stdout)


# --- memory ---


@pytest.mark.parametrize(
    ("optimizer", "n_copies"),
    [
        ({"kind": "sgd", "lr": 0.1}, 2),
        ({"kind": "sgd", "lr": 0.1, "momentum": 0.9}, 3),
        ({"kind": "adam", "lr": 0.1}, 4),
        ({"kind": "adamw", "lr": 0.1}, 4),
    ],
)
def test_weights_gradients_and_the_optimizers_state_are_counted(
    optimizer: dict[str, Any], n_copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = recipe(optimizer=optimizer, model__backbone__stages=linear(1000, 2000))
    built = replace(build_and_try(asked)[0], kept_per_row=0)
    needed = 4 * n_copies * sum(parameter.numel() for parameter in built.model.parameters())
    monkeypatch.setattr("mtl.training.devices.available_memory", lambda: needed)
    require_room(asked, built, CPU)
    monkeypatch.setattr("mtl.training.devices.available_memory", lambda: needed - 1)
    with pytest.raises(EnvironmentFault) as caught:
        require_room(asked, built, CPU)
    assert str(caught.value).startswith(
        f"recipe: model.backbone: the weights, their gradients and the state of {optimizer['kind']} take "
    )


@pytest.mark.parametrize("features", [100, 5000])  # the larger one is tried without memory
def test_the_activations_of_a_batch_are_counted(features: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer keeps its input and its output for the backward pass, and batch norm its own input, for two towers."""
    asked = recipe(model__backbone__stages=linear(features, features), train__batch_size=64)
    built, _ = build_and_try(asked)
    weights = 2 * sum(parameter.nbytes for parameter in built.model.parameters())
    assert 4 * 2 * 2 * features <= built.kept_per_row <= 4 * 2 * 10 * features
    needed = weights + 64 * built.kept_per_row
    monkeypatch.setattr("mtl.training.devices.available_memory", lambda: needed)
    require_room(asked, built, CPU)
    monkeypatch.setattr("mtl.training.devices.available_memory", lambda: needed - 1)
    with pytest.raises(EnvironmentFault) as caught:
        require_room(asked, built, CPU)
    what = "the weights, their gradients and the state of sgd, and the activations of 64 rows take "
    assert str(caught.value).startswith(f"recipe: train.batch_size: {what}")


def test_a_weight_that_is_computed_is_no_activation() -> None:
    """`lora` computes a weight of each tower, which a larger batch does not make larger."""
    asked = recipe(
        model__backbone__stages=linear(300, 300),
        model__sharing={"kind": "lora", "stages": ["fc2"], "rank": 2},
    )
    assert build_and_try(asked)[0].kept_per_row < 4 * 300 * 300


def test_the_weights_of_a_gpu_are_drawn_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    built, _ = build_and_try(recipe())
    monkeypatch.setattr("mtl.training.devices.free_memory", lambda device: 10**9)
    require_room(recipe(), built, torch.device("cuda"))
    monkeypatch.setattr("mtl.data.memory.available_memory", lambda: 100)
    require_room(recipe(), built, CPU)
    with pytest.raises(EnvironmentFault, match=r"^recipe: model.backbone: the weights take "):
        require_room(recipe(), built, torch.device("cuda"))


@pytest.mark.parametrize("command", [["validate"], ["run"], ["run", "--dry-run"]])
@pytest.mark.parametrize("features", [60_000, 900_000])
def test_a_network_that_is_too_large_is_refused(
    command: list[str], features: int, folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtl.training.devices.available_memory", lambda: 8 * 10**9)
    write(folder, model__backbone__stages=linear(features, features), optimizer={"kind": "adam", "lr": 0.1})
    n_weights = 2 * (16 * features + features**2 + 2 * 2 * features + 2 * features + 2)
    line = (
        "r.yaml:8:13: model.backbone: the weights, their gradients and the state of adam take "
        f"{file_size(16 * n_weights)}, 8.0 GB are free; make the layers smaller"
    )
    refused(lambda: called(capsys, *command, "r.yaml"), folder, [line], code=ENVIRONMENT)
    assert called(capsys, "summary", "r.yaml").stdout.startswith(f"small: 2 tasks, 2 towers, {n_weights:,} ")


def test_a_lack_that_shows_later_is_no_bug(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mtl.experiment.run, "build", lambda *_, **__: torch.empty(1 << 50))
    write(folder)
    refused(lambda: called(capsys, "run", "r.yaml"), folder, ["not enough memory; lower "], code=ENVIRONMENT)


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_what_reports_a_lack_of_memory(error: Exception, is_one: bool) -> None:
    assert is_out_of_memory(error) is is_one


def test_the_real_errors_report_it() -> None:
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(1 << 50)
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(1 << 50)
    assert is_out_of_memory(of_torch.value)
    assert is_out_of_memory(of_numpy.value)

"""What `mtl summary` says, against counts made by hand."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mtl.build import build
from mtl.console import number
from mtl.experiment.trial import build_and_try, preview
from mtl.recipe.load import load_recipe
from mtl.report.summary import count_flops, parameter_count, summarize

SMALL = ("tasks={a: {kind: multiclass, target: task0}, b: {kind: multiclass, target: task1}}",)


@cache
def text(name: str, *overrides: str) -> str:
    recipe = load_recipe(name, overrides)
    return summarize(recipe, *build_and_try(recipe))


def row(name: str, first: str, *overrides: str) -> list[str]:
    """The cells of the one line that begins with `first`."""
    (line,) = [line for line in text(name, *overrides).splitlines() if line.split()[:1] == [first]]
    return line.split()


def test_the_published_network() -> None:
    """conv1 3*3*1*32, conv2 3*3*32*64, fc3 3136*1024, each with a scale and a shift per channel."""
    lines = text("fashion_stitch").splitlines()
    assert lines[0] == "fashion_stitch: 2 tasks, 2 towers, 6,477,798 parameters"
    assert lines[1] == "input 1 x 28 x 28 per row"
    assert row("fashion_stitch", "conv1")[1:7] == ["32", "x", "28", "x", "28", "352"]
    assert row("fashion_stitch", "conv2")[6] == f"{9 * 32 * 64 + 2 * 64:,}"
    assert row("fashion_stitch", "fc3")[1:3] == ["1024", f"{3136 * 1024 + 2 * 1024:,}"]
    assert row("fashion_stitch", "garment")[1:] == ["fashion.garment", "garment", "10", "10,260", "1"]
    assert row("fashion_stitch", "audience")[1:] == ["multiclass", "audience", "3", "3,078", "1"]
    assert row("fashion_stitch", "towers")[1] == f"{2 * (352 + 18560 + 3213312):,}"
    said = "cross_stitch joins towers garment, audience at pool1, pool2, fc3; it holds 12 parameters"
    assert lines[-1] == said


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("fashion_stitch", 3 * 2 * 2),
        ("fashion_stitch_channel", (32 + 64 + 1024) * 2 * 2),
        ("fashion_stitch_dense", 12544**2 + 6272**2 + 2048**2),
        ("fashion_three_tasks", 3 * 3 * 3),
    ],
)
def test_what_a_stitch_costs(name: str, parameters: int) -> None:
    assert f"; it holds {parameters:,} parameters" in text(name)
    assert row(name, "sharing")[1] == f"{parameters:,}"


def test_the_dense_stitch_is_the_published_one() -> None:
    assert "200,884,224" in text("fashion_stitch_dense")


def test_flops_are_two_per_multiplication() -> None:
    """One row through both towers: conv1 28*28*32*9, conv2 14*14*64*9*32, fc3 3136*1024; heads 1024*13."""
    macs = {"conv1": 28 * 28 * 32 * 9, "conv2": 14 * 14 * 64 * 9 * 32, "fc3": 3136 * 1024}
    shown = {"conv1": "0.4516", "conv2": "7.225", "fc3": "6.423"}
    for stage, count in macs.items():
        assert number(2 * count / 1e6) == shown[stage]
        assert shown[stage] in row("fashion_stitch", stage)
    assert row("fashion_stitch", "towers")[2] == number(2 * 2 * sum(macs.values()) / 1e6) == "28.20"
    assert row("fashion_stitch", "heads")[2] == number(2 * 1024 * 13 / 1e6) == "0.02662"


def test_a_single_task_is_one_task() -> None:
    assert text("fashion_stitch", "~tasks.audience", "~model.sharing").startswith(
        "fashion_stitch: 1 task, 1 tower, "
    )


@pytest.mark.parametrize("granularity", ["scalar", "channel", "dense"])
def test_flops_on_meta_are_those_of_the_real_network(granularity: str) -> None:
    recipe = load_recipe("synthetic_stitch", [f"model.sharing.granularity={granularity}"])
    built, header = build_and_try(recipe)
    counts = count_flops(built, header)
    real = build(recipe, header)
    real.model.eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        real.model(torch.zeros(10, *header.input_shape))
    assert 10 * sum(counts[part] for part in ("towers", "sharing", "heads")) == counter.get_total_flops()
    assert parameter_count(built.model) == parameter_count(real.model)


def test_what_is_shared() -> None:
    assert "towers share nothing with each other" in text("fashion_independent")
    assert text("fashion_shared").splitlines()[0].startswith("fashion_shared: 2 tasks, 1 tower, ")
    assert "tower 'shared' is shared by garment, audience" in text("fashion_shared")
    assert " joins " not in text("fashion_independent") + text("fashion_shared")
    own_experts = text("synthetic_stitch", "model.sharing={kind: cgc, own: 1, shared: 0}")
    assert "towers share nothing with each other" in own_experts
    assert " joins " not in own_experts


def test_the_parts_add_up() -> None:
    for name in ("fashion_stitch", "fashion_shared", "synthetic_stitch"):
        parts = [int(row(name, part)[1].replace(",", "")) for part in ("towers", "sharing", "heads")]
        assert int(row(name, "all")[1].replace(",", "")) == sum(parts)


def test_weights_are_shown() -> None:
    assert row("fashion_stitch", "garment", "tasks.garment.weight=0.25")[-1] == "0.25"


def test_the_width_of_an_encoded_row_is_said(tmp_path: Path) -> None:
    rows = [f"{i % 7},{'' if i % 5 == 0 else i},{'abc'[i % 3]},{i % 2}" for i in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(["u,v,city,y", *rows]))
    inputs = {"numeric": ["u", "v"], "categorical": ["city"], "missing": "mean", "indicator": True}
    source = {"kind": "table", "path": str(tmp_path / "t.csv"), "inputs": inputs}
    stage = {"name": "fc1", "kind": "linear", "features": 2}
    recipe = load_recipe(
        {
            "schema_version": 1,
            "name": "t",
            "data": {"source": source, "split": {"test": 0.5}},
            "tasks": {"y": {"kind": "binary", "target": "y"}},
            "model": {"backbone": {"kind": "layers", "stages": [stage]}},
            "optimizer": {"kind": "sgd", "lr": 0.1},
            "train": {"epochs": 1, "batch_size": 8},
        }
    )
    built, header, _ = preview(recipe)
    assert (
        "\ninput 3 per row, which the first layer reads as 6 numbers (categories and missing values encoded)\n"
        in (summarize(recipe, built, header))
    )

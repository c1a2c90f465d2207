"""Runs of towers of timm: stopped and resumed they end with the same bytes, and they predict and export."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import mtl
from mtl.training.events import Stepped
from tests.support.listening import Watching
from tests.support.optional import needs_timm
from tests.support.recipes import small, stitched

pytestmark = needs_timm

N, SIZE, BATCH = 100, 32, 20
STEPS, SAVED = N // BATCH, 3
LAYERS = ("layer1", "layer2", "layer3", "layer4")
SGD, ADAM = {"kind": "sgd", "lr": 0.01, "momentum": 0.9}, {"kind": "adam", "lr": 1e-3}


class Stop(BaseException):
    """The end of a process that comes at once."""


class StopAfter(Watching):
    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def stepped(self, event: Stepped) -> None:
        if self.trainer.progress.step == self.step:
            raise Stop


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred images to train on and twenty to test on, with the labels of two tasks."""
    draws, n = np.random.default_rng(0), N + BATCH
    path = tmp_path_factory.mktemp("images") / "images.npz"
    np.savez(
        path,
        inputs=draws.integers(0, 256, (n, 3, SIZE, SIZE), dtype=np.uint8),
        colour=draws.integers(0, 3, n),
        age=draws.normal(size=n).astype(np.float32),
        split=np.array(["train"] * N + ["test"] * BATCH),
    )
    return path


def mapping(
    images: Path, optimizer: dict[str, Any], after: tuple[str, ...], **backbone: Any
) -> dict[str, Any]:
    return small(
        data={
            "source": {"kind": "npz", "path": str(images)},
            "split": {"column": "split"},
            "standardize": {"kind": "per_channel"},
        },
        tasks={
            "colour": {"kind": "multiclass", "target": "colour"},
            "age": {"kind": "regression", "target": "age"},
        },
        model={"backbone": {"kind": "timm", **backbone}, "sharing": stitched(*after)},
        optimizer=optimizer,
        train__batch_size=BATCH,
        train__checkpoint={"every": {"steps": SAVED}},
    )


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtl.report.plots.plot_run", lambda *_: [])


def ends(run: Path) -> dict[str, str]:
    """The digest of every file of the last checkpoint, and of the metrics."""
    last = run / "checkpoints" / f"step-{STEPS:08d}"
    files = [path for path in last.iterdir() if path.name != "manifest.json"] + [run / "metrics.jsonl"]
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert {"model.safetensors", "optim.safetensors", "state.json"} <= found.keys()
    return found


def resumed(run: Path) -> None:
    """Go on in a new process."""
    code = "import sys, mtl; mtl.resume(sys.argv[1], report=False)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(run)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("no_plots")
def test_resnet18_stitched_after_its_four_stages_is_resumed_bit_for_bit(images: Path, tmp_path: Path) -> None:
    made = mapping(images, SGD, LAYERS, name="resnet18")
    whole = mtl.run(made, out=tmp_path / "whole", report=False)
    assert whole.record.step == STEPS
    with pytest.raises(Stop):
        mtl.run(made, out=tmp_path / "stopped", listeners=(StopAfter(SAVED + 1),), report=False)
    resumed(tmp_path / "stopped")
    assert ends(tmp_path / "stopped") == ends(tmp_path / "whole")


@pytest.mark.usefixtures("no_plots")
def test_a_resumed_run_needs_no_file_of_weights(images: Path, tmp_path: Path) -> None:
    """Separate stages, a frozen one among them, and an optimizer with moments."""
    from mtl.backbones.timm.network import make

    torch.manual_seed(1)
    weights = make("dla46x_c", 3).state_dict()
    save_file(weights, file := tmp_path / "weights.safetensors")
    options = {"name": "dla46x_c", "pretrained": True, "weights": str(file), "freeze": ["stem", "level2"]}
    made = mapping(
        images, ADAM, ("level1", "level3"), stages=["stem", "level1", "level2", "level3"], **options
    )
    mtl.run(made, out=tmp_path / "whole", report=False)
    with pytest.raises(Stop):
        mtl.run(made, out=tmp_path / "stopped", listeners=(StopAfter(SAVED + 1),), report=False)
    file.unlink()
    resumed(tmp_path / "stopped")
    assert ends(tmp_path / "stopped") == ends(tmp_path / "whole")
    state = load_file(tmp_path / "whole" / "checkpoints" / f"step-{STEPS:08d}" / "model.safetensors")
    prefix = "trunk.towers.stages."
    for key in ("level2.tree1.conv2.weight", "level2.tree1.bn2.running_mean"):  # frozen, separate
        assert torch.equal(state[f"{prefix}level2.towers.1.{key}"], weights[key])
    for key in ("base_layer.0.weight", "base_layer.1.running_mean"):  # frozen, grouped
        assert torch.equal(state[f"{prefix}stem.{key}"], torch.cat([weights[key]] * 2))
    assert not torch.equal(state[f"{prefix}level1.level1.0.weight"].chunk(2)[0], weights["level1.0.weight"])


@pytest.fixture(scope="module")
def finished(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("finished") / "run"
    mtl.run(mapping(images, SGD, LAYERS, name="test_resnet"), out=run, report=False)
    return run


def test_a_finished_run_predicts_the_same_for_the_same_rows(finished: Path, images: Path) -> None:
    model, inputs = mtl.load(finished), np.load(images)["inputs"]
    together, one = model.predict(inputs[:8]), model.predict(inputs[3:4])
    assert np.allclose(together["age"][3], one["age"][0], atol=1e-4)
    assert len(together["colour"]) == 8


def test_a_finished_run_is_exported(finished: Path, images: Path, tmp_path: Path) -> None:
    from mtl.export.write import export
    from mtl.inference.load import load_trained

    done = export(load_trained(finished, "cpu"), tmp_path / "network.pt2", "torch")
    assert done.n_rows >= BATCH
    assert done.difference < 1e-4

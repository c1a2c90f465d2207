"""TensorBoard's own reader finds in the event files what metrics.jsonl and sharing.jsonl say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import mtl
from mtl.recipe.specs import TRACKERS, TrackedRun
from tests.support.listening import Watching
from tests.support.recipes import changed
from tests.support.small_run import RECIPE
from tests.trackers.interrupted import Interrupted

TRACKED: dict[str, Any] = changed(
    RECIPE,
    trackers=["tensorboard"],
    train__checkpoint={"every": {"epochs": 2}},
    data__split={"validation": 0.2},
)
Points = dict[tuple[str, int], list[float]]


def reader(run: Path) -> EventAccumulator:
    found = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    return found.Reload()


def shown(run: Path, *prefixes: str) -> Points:
    """(tag, step) -> its values, as TensorBoard reads them."""
    points: Points = {}
    accumulator = reader(run)
    for tag in accumulator.Tags()["scalars"]:
        if tag.startswith(prefixes):
            for event in accumulator.Scalars(tag):
                points.setdefault((tag, event.step), []).append(event.value)
    return points


def measured(run: Path) -> Points:
    """(metric, step) -> its values in metrics.jsonl, in the float32 of an event file."""
    points: Points = {}
    for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for key, value in row.items():
            if "/" in key and value is not None:
                points.setdefault((key, row["step"]), []).append(float(np.float32(value)))
    return points


def shared(run: Path) -> Points:
    points: Points = {}
    for line in (run / "sharing.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for place, matrix in row["sharing"].items():
            for target, values in zip(matrix["targets"], matrix["values"], strict=True):
                for source, value in zip(matrix["sources"], values, strict=True):
                    name = f"sharing/{place}/{target}<-{source}"
                    points.setdefault((name, row["step"]), []).append(float(np.float32(value)))
    return points


def same(run: Path) -> None:
    metrics = shown(run, "train/", "validation/", "test/")
    assert metrics == measured(run)
    assert {tag.split("/")[0] for tag, _ in metrics} >= {"train", "test"}
    assert all(len(values) == 1 for values in metrics.values())
    assert shown(run, "sharing/") == shared(run)
    assert len(list((run / "tensorboard").iterdir())) == 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never interrupted."""
    path = tmp_path_factory.mktemp("whole") / "run"
    watching = Watching()
    mtl.run(TRACKED, out=path, listeners=(watching,))
    assert watching.warnings == [warning for warning in watching.warnings if "tracker" not in warning]
    return path


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    """A run that was interrupted one epoch after its checkpoint."""
    path = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        mtl.run(TRACKED, out=path, listeners=(Interrupted(3),))
    return path


def test_it_shows_what_the_logs_say(whole: Path) -> None:
    same(whole)


def test_it_shows_times_pictures_and_parameters(whole: Path) -> None:
    found = reader(whole)
    assert len(found.Scalars("timing/train_seconds")) == 4
    assert all(event.value > 0 for event in found.Scalars("timing/rows_per_second"))
    assert set(found.Tags()["images"]) == {path.stem for path in (whole / "plots").glob("*.png")}
    (image,) = found.Images("curves_loss")
    assert image.encoded_image_string == (whole / "plots" / "curves_loss.png").read_bytes()
    assert image.width > image.height > 100
    assert found.Tags()["tensors"] == ["_hparams_/session_start_info"]
    content = found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    parameters = HParamsPluginData.FromString(content).session_start_info.hparams
    assert parameters["optimizer.lr"].number_value == 0.01
    assert parameters["optimizer.kind"].string_value == "adam"
    assert not any(name.startswith("trackers") for name in parameters)


def test_the_bits_of_a_training_are_the_same_without_it(whole: Path, tmp_path: Path) -> None:
    alone = mtl.run(changed(TRACKED, trackers=None), out=tmp_path / "alone").path
    names = ("metrics.jsonl", "sharing.jsonl", "metrics.csv")
    names += tuple(str(path.relative_to(whole)) for path in (whole / "checkpoints").glob("*/*.safetensors"))
    assert len(names) >= 6
    for name in names:
        assert (alone / name).read_bytes() == (whole / name).read_bytes(), name
    assert not (alone / "tensorboard").exists()


def test_a_resumed_run_neither_repeats_nor_loses_a_point(cut: Path, whole: Path) -> None:
    before = shown(cut, "train/")
    assert ("train/a/loss", 12) in before
    times = {(tag, e.step): e.wall_time for tag in ("train/a/loss",) for e in reader(cut).Scalars(tag)}
    mtl.resume(cut / "checkpoints" / "step-00000008")  # the last one may be that of the best epoch
    same(cut)
    assert shown(cut, "train/", "validation/", "test/", "sharing/") == shown(
        whole, "train/", "validation/", "test/", "sharing/"
    )
    again = {("train/a/loss", e.step): e.wall_time for e in reader(cut).Scalars("train/a/loss")}
    assert again[("train/a/loss", 8)] == times[("train/a/loss", 8)]


def test_what_lay_after_the_checkpoint_is_gone_as_in_the_logs(cut: Path) -> None:
    """Interrupted again right after it went on, the run shows what its logs have."""
    with pytest.raises(KeyboardInterrupt):
        mtl.resume(cut / "checkpoints" / "step-00000008", listeners=(Interrupted(3),))
    metrics = shown(cut, "train/", "validation/", "test/")
    assert metrics == measured(cut)
    assert max(step for _, step in metrics) == 12


def test_a_tracker_that_is_added_later_shows_the_whole_run(tmp_path: Path, whole: Path) -> None:
    path = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        mtl.run(changed(TRACKED, trackers=None), out=path, listeners=(Interrupted(2),))
    assert not (path / "tensorboard").exists()
    mtl.resume(path, ["trackers=[tensorboard]"])
    same(path)
    assert shown(path, "train/") == shown(whole, "train/")


def test_the_test_row_of_an_earlier_end_is_gone(whole: Path, tmp_path: Path) -> None:
    """A finished run that gets more epochs is tested anew at another step."""
    path = shutil.copytree(whole, tmp_path / "run")
    mtl.resume(path, ["train.epochs=5"])
    same(path)


def begun(folder: Path, parameters: Mapping[str, Any]) -> Any:
    tracker = TRACKERS["tensorboard"]().open()
    tracker.begin(TrackedRun(folder, "id", "name", "", parameters, None))
    return tracker


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A disk that takes the first bytes of a write and then no more, as long as the list is not empty."""
    import io

    left: list[int] = []
    plain = Path.open

    class Full(io.FileIO):
        def write(self, data: Any, /) -> int:
            if not left:
                return super().write(data)
            if room := left.pop():
                left.append(0)
                return super().write(bytes(data[:room]))
            raise OSError(28, "No space left on device")

    def opened(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        return Full(path, "a") if mode == "ab" else plain(path, mode, *args, **options)

    monkeypatch.setattr(Path, "open", opened)
    return left


def test_a_full_disk_leaves_no_half_record(tmp_path: Path, full: list[int]) -> None:
    tracker = begun(tmp_path, {"lr": 0.1})
    tracker.log({"train/a/loss": 1.0}, 1)
    full.append(7)
    with pytest.raises(OSError, match="No space left"):
        tracker.log({"train/a/loss": 2.0}, 2)
    full.clear()
    tracker.log({"train/a/loss": 2.0}, 2)
    tracker.log({"train/a/loss": 3.0}, 3)
    assert shown(tmp_path, "train/") == {("train/a/loss", n): [float(n)] for n in (1, 2, 3)}


def test_a_link_out_of_the_run_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    kept = tmp_path / "elsewhere" / "events.out.tfevents.1"
    kept.write_bytes(b"")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="is a link, not a folder"):
        begun(tmp_path / "run", {})
    assert list((tmp_path / "elsewhere").iterdir()) == [kept]


def test_a_damaged_file_of_an_earlier_part_is_replaced(tmp_path: Path) -> None:
    begun(tmp_path, {}).log({"train/a/loss": 1.0}, 1)
    (old,) = (tmp_path / "tensorboard").iterdir()
    old.write_bytes(old.read_bytes()[:-3])
    begun(tmp_path, {}).log({"train/a/loss": 1.0}, 1)
    assert shown(tmp_path, "train/") == {("train/a/loss", 1): [1.0]}
    assert not old.exists()

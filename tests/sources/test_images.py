"""Images that a table names: a run on them, and their faults through the command line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtl.data import memory
from mtl.errors import ENVIRONMENT, OK
from tests.support.assertions import Capture, called, refused
from tests.support.recipes import PLACE, around, write

N = 12
STAGES: list[dict[str, object]] = [
    {"name": "conv", "kind": "conv", "channels": 2, "kernel": 3},
    {"name": "fc", "kind": "linear", "features": 4},
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with t.csv and twelve images of 6 x 5: bright and dark; runs draw no plots."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mtl.report.plots.plot_run", lambda *_: [])
    (tmp_path / "img").mkdir()
    noise = np.random.default_rng(0).integers(0, 60, (N, 6, 5, 3))
    for i in range(N):
        pixels = (noise[i] + i % 2 * 180).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "img" / f"{i}.png")
    name(tmp_path)
    recipe(tmp_path)
    return tmp_path


def name(folder: Path, at: int = -1, path: str = "") -> None:
    """Write t.csv; its row of image `at` names `path` instead. The header is row 1."""
    paths = [path if i == at else f"img/{i}.png" for i in range(N)]
    rows = [f'"{shown}",{i % 2}' for i, shown in enumerate(paths)]
    (folder / "t.csv").write_text("\n".join(["image,label", *rows]) + "\n")


def recipe(folder: Path, **image: object) -> None:
    source = {"kind": "table", "path": "t.csv", "inputs": {"image": {"column": "image", **image}}}
    write(folder, **around(source), model__backbone__stages=STAGES)


@pytest.mark.parametrize(
    ("image", "shape"),
    [({}, [3, 6, 5]), ({"mode": "grey"}, [1, 6, 5]), ({"size": [4, 4]}, [3, 4, 4])],
)
def test_a_run_on_images(image: dict[str, object], shape: list[int], folder: Path, capsys: Capture) -> None:
    recipe(folder, **image)
    done = called(capsys, "run", "r.yaml", "--out", "out", "--quiet")
    assert done.returncode == OK, done.stderr
    record = json.loads((folder / "out" / "run.json").read_text())
    assert record["data"]["rows"] == {"train": 9, "test": 3}
    assert record["model"]["input_shape"] == shape


def test_a_run_does_not_go_on_when_a_pixel_changed(folder: Path, capsys: Capture) -> None:
    assert called(capsys, "run", "r.yaml", "--out", "out", "--quiet").returncode == OK
    record = json.loads((folder / "out" / "run.json").read_text())
    (folder / "out" / "run.json").write_text(json.dumps(record | {"status": "interrupted"}))
    pixels = np.array(Image.open(folder / "img" / "3.png"))
    pixels[2, 2, 1] ^= 1
    Image.fromarray(pixels).save(folder / "img" / "3.png")
    done = called(capsys, "run", "--resume", "out", "--quiet")
    assert done.returncode == 2
    assert "data changed since this run began" in done.stderr


def broken(folder: Path, data: bytes, at: int = 9) -> None:
    (folder / "img" / f"{at}.png").write_bytes(data)


def test_d29_a_missing_image(folder: Path, capsys: Capture) -> None:
    (folder / "img" / "9.png").unlink()
    text = f"{PLACE}t.csv:row 11: no such file img/9.png"
    refused(lambda: called(capsys, "run", "r.yaml"), folder, [text])


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_d30_a_truncated_image(suffix: str, folder: Path, capsys: Capture) -> None:
    image = Image.open(folder / "img" / "9.png").resize((60, 50))
    image.save(folder / f"cut.{suffix}")
    whole = (folder / f"cut.{suffix}").read_bytes()
    (folder / f"cut.{suffix}").write_bytes(whole[: len(whole) // 2])
    name(folder, 9, f"cut.{suffix}")
    recipe(folder, size=[6, 5])
    text = f"{PLACE}t.csv:row 11: cut.{suffix}: image is truncated"
    refused(lambda: called(capsys, "run", "r.yaml"), folder, [text])


@pytest.mark.parametrize("data", [b"<!DOCTYPE html><html>", b"some text\n", b"", b"GIF89a" + bytes(40)])
def test_d31_another_file_named_png(data: bytes, folder: Path, capsys: Capture) -> None:
    broken(folder, data)
    text = f"{PLACE}t.csv:row 11: img/9.png is not PNG or JPEG"
    refused(lambda: called(capsys, "run", "r.yaml"), folder, [text])


def test_d33_an_animation(folder: Path, capsys: Capture) -> None:
    image = Image.open(folder / "img" / "9.png")
    image.save(folder / "img" / "9.png", save_all=True, append_images=[image.rotate(180)])
    text = f"{PLACE}t.csv:row 11: img/9.png is animated; give one frame"
    refused(lambda: called(capsys, "run", "r.yaml"), folder, [text])


def test_d33_every_mode_becomes_the_declared_one(folder: Path, capsys: Capture) -> None:
    modes = ("L", "1", "P", "LA", "RGBA", "I;16", "CMYK")
    for i, mode in enumerate(modes):
        suffix = "jpg" if mode == "CMYK" else "png"
        image = Image.open(folder / "img" / f"{i}.png")
        if mode == "I;16":
            image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
        else:
            image = image.convert(mode)
        image.save(folder / "img" / f"{i}.{suffix}")
        if suffix == "jpg":
            name(folder, i, f"img/{i}.jpg")
        with Image.open(folder / "img" / f"{i}.{suffix}") as saved:
            assert saved.mode == mode
    done = called(capsys, "run", "r.yaml", "--out", "out", "--quiet")
    assert done.returncode == OK, done.stderr


def test_d34_different_sizes(folder: Path, capsys: Capture) -> None:
    Image.new("RGB", (7, 8)).save(folder / "img" / "9.png")
    text = (
        f"{PLACE}t.csv:row 11: 'img/9.png' is 8 x 7, t.csv:row 2 is 6 x 5; give inputs.image.size to resize"
    )
    refused(lambda: called(capsys, "run", "r.yaml"), folder, [text])


def test_more_images_than_memory(folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe(folder, size=[3000, 3000])
    monkeypatch.setattr(memory, "available_memory", lambda: 200_000_000)
    text = f"{PLACE}12 images of 3000 x 3000 take 324.0 MB, 200.0 MB are free; set data.in_memory: false, or lower"
    refused(
        lambda: called(capsys, "run", "r.yaml", "~model.backbone.stages.0"), folder, [text], code=ENVIRONMENT
    )


PATHS = {
    "up": ("../../etc/passwd", "'../../etc/passwd' is outside the data's folder; name images relative to the"),
    "absolute": ("/etc/passwd", "'/etc/passwd' is outside the data's folder"),
    "backslash": ("..\\secret.png", "'..\\\\secret.png' is outside the data's folder"),
    "link": ("link.png", "'link.png' leads outside the data's folder; links must stay inside"),
    "linked_folder": ("etc/passwd", "'etc/passwd' leads outside the data's folder"),
    "circle": ("circle.png", "no such file circle.png"),
    "pipe": ("pipe.png", "'pipe.png' is not a file"),
    "folder": ("img", "'img' is not a file"),
    "empty": ("", "no image is named"),
    "long": ("x" * 300, "no such file 'xxx"),
    "escape": ("\x1b[31m.png", "no such file '\\x1b[31m.png'"),
}  # fmt: skip


@pytest.mark.parametrize("at", [0, 9])
@pytest.mark.parametrize("case", PATHS)
def test_a_path_stays_below_the_tables_folder(case: str, at: int, folder: Path, capsys: Capture) -> None:
    """Of the first row already while the recipe is checked, of any other while rows are read."""
    path, text = PATHS[case]
    name(folder, at, path)
    for link, target in {"link.png": "/etc/passwd", "etc": "/etc", "circle.png": "circle.png"}.items():
        (folder / link).symlink_to(target)
    os.mkfifo(folder / "pipe.png")
    done = called(capsys, "run", "r.yaml")
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {PLACE}t.csv:row {at + 2}: {text}")
    assert line.isprintable()
    assert "root:" not in line
    assert not (folder / "runs").exists()


def test_pixels_are_capped(folder: Path, capsys: Capture) -> None:
    from tests.data.files.test_images import png

    for side, text in (
        ((10_000, 6_000), "has 60000000 pixels, at most"),
        ((20_000, 20_000), "has more than"),
    ):
        broken(folder, png(*side, bytes(20)))
        refused(
            lambda: called(capsys, "run", "r.yaml"),
            folder,
            [f"{PLACE}t.csv:row 11: img/9.png {text} 50000000"],
        )

"""The four files: from where they are taken, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import ValidationError

from mtl.data.files import download, idx
from mtl.data.files.download import Remote
from mtl.data.rows.order import order
from mtl.errors import EnvironmentFault, UserError
from mtl.recipe.specs import SOURCES
from mtl.sources import fashion_mnist
from mtl.sources.fashion_mnist import DEBIAN, FILES, FashionMnist, fetch
from tests.support.assertions import Capture, Done, called, refused

TINY = {"train": 12, "test": 5}
PUBLISHED = {  # what gzip -n left out of Debian's copies: the time at which the published files were made
    "train-images-idx3-ubyte": 1504176606,
    "train-labels-idx1-ubyte": 1504176606,
    "t10k-images-idx3-ubyte": 1504176627,
    "t10k-labels-idx1-ubyte": 1504176627,
}
needs_the_real_set = pytest.mark.skipif(
    not all((DEBIAN / file.remote.name).is_file() for file in FILES),
    reason="needs the Debian package dataset-fashion-mnist",
)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small set published at `tmp_path/web`, an empty cache, no Debian package, and downloads as copies."""
    web, files, random = tmp_path / "web", [], np.random.default_rng(0)
    web.mkdir()
    for file in FILES:
        shape, high = file.shape(TINY), 256 if file.what == "images" else 10
        plain = idx.write(random.integers(0, high, shape, dtype=np.uint8))
        packed = gzip.compress(plain, mtime=0)
        (web / file.remote.name).write_bytes(packed)
        remote = Remote(file.remote.name, len(packed), hashlib.sha256(packed).hexdigest())
        files.append(replace(file, sha256=hashlib.sha256(plain).hexdigest(), remote=remote))
    monkeypatch.setattr(fashion_mnist, "FILES", tuple(files))
    monkeypatch.setattr(fashion_mnist, "COUNTS", TINY)
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "debian")
    monkeypatch.setenv("MTL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "download", Copies(web))
    return tmp_path


class Copies:
    """Stands for `download.download`; tests/data/files/test_download.py tests that one over a network."""

    def __init__(self, web: Path) -> None:
        self.web, self.asked = web, list[str]()

    def __call__(self, remote: Remote, mirrors: tuple[str, ...], folder: Path, todo: str) -> Path:
        self.asked.append(remote.name)
        if not (self.web / remote.name).exists():
            raise EnvironmentFault(remote.name, f"cannot reach {mirrors[0]}{remote.name}", todo)
        (folder / remote.name).write_bytes((self.web / remote.name).read_bytes())
        return folder / remote.name


def asked() -> list[str]:
    copies = download.download
    assert isinstance(copies, Copies)
    return copies.asked


def publish(world: Path, folder: str) -> Path:
    (world / folder).mkdir(parents=True)
    for file in fashion_mnist.FILES:
        (world / folder / file.remote.name).write_bytes((world / "web" / file.remote.name).read_bytes())
    return world / folder


def damage(path: Path) -> None:
    """Change one pixel or label, and pack it well again."""
    data = bytearray(gzip.decompress(path.read_bytes()))
    data[-1] ^= 1
    path.write_bytes(gzip.compress(data))


def fault(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        FashionMnist(path=str(path)).columns(0)
    assert not isinstance(caught.value, EnvironmentFault)
    assert caught.value.code == 2
    assert caught.value.path == ("path",)
    return str(caught.value)


def test_header_needs_no_file() -> None:
    header = FashionMnist().header()
    assert header.input_shape == (1, 28, 28)
    assert header.note == ""
    assert header.row_counts == {"train": 60_000, "test": 10_000}
    labels = header.labels["label"]
    assert labels is not None
    assert len(labels) == 10
    assert labels[9] == "Ankle boot"
    assert SOURCES["fashion_mnist"] is FashionMnist
    assert not FashionMnist.generated


def test_a_given_folder_is_read_gzipped_or_not(world: Path) -> None:
    folder = publish(world, "mine")
    assert FashionMnist(path=str(folder)).header().input_shape == (1, 28, 28)
    packed = FashionMnist(path=str(folder)).columns(0)
    assert packed.inputs.shape == (17, 1, 28, 28)
    assert packed.inputs.dtype == np.uint8
    assert packed.labels["label"].dtype == np.int64
    assert packed.labels["label"].shape == (17,)
    assert packed.splits["train"].tolist() == list(range(12))
    assert packed.splits["test"].tolist() == list(range(12, 17))
    for file in fashion_mnist.FILES:
        gz = folder / file.remote.name
        (folder / file.name).write_bytes(gzip.decompress(gz.read_bytes()))
        gz.unlink()
    plain = FashionMnist(path=str(folder)).columns(1)
    np.testing.assert_array_equal(packed.inputs, plain.inputs)
    assert packed.fingerprint == plain.fingerprint
    assert asked() == []


def test_a_given_folder_must_hold_four_undamaged_files(world: Path) -> None:
    folder = publish(world, "mine")
    labels = folder / "train-labels-idx1-ubyte.gz"
    whole = labels.read_bytes()
    labels.write_bytes(whole[:-5])
    assert fault(folder).startswith(f"{labels}: path: the gzip data end too early")
    labels.write_bytes(gzip.compress(idx.write(np.zeros(11, np.uint8))))
    assert fault(folder) == f"{labels}: path: expected 12 labels, file has 11; get the file again"
    labels.write_bytes(gzip.compress(idx.write(np.zeros((12, 2), np.uint8))))
    assert "expected labels of shape (), file has (2,)" in fault(folder)
    labels.write_bytes(whole)
    damage(labels)
    assert f"{labels}: path: is not Fashion-MNIST's: its unpacked bytes have sha256 " in fault(folder)
    labels.unlink()
    missing = (
        "no file train-labels-idx1-ubyte.gz or train-labels-idx1-ubyte; put the four Fashion-MNIST files"
    )
    assert fault(folder).startswith(f"{folder}: path: {missing}")
    with pytest.raises(UserError, match="no file train-labels"):
        FashionMnist(path=str(folder)).header()
    labels.mkdir()
    assert "no file train-labels" in fault(folder)
    assert asked() == []


def test_a_file_that_cannot_be_read(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = publish(world, "mine")

    def refuse(self: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        assert "train-images-idx3-ubyte.gz: path: cannot be read: Permission denied" in fault(folder)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_file", refuse)
        assert "mine: path: cannot be read: Permission denied" in fault(folder)


def test_path_and_sample_exclude_each_other() -> None:
    with pytest.raises(ValidationError) as caught:
        FashionMnist(path="x", sample=True)
    assert caught.value.errors()[0]["msg"] == "give either path or sample: true, not both"


def test_debians_folder_is_used_before_the_network(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = publish(world, "debian")
    assert fetch() == folder
    out, err = capsys.readouterr()
    assert out == f"Fashion-MNIST is in {folder} (4 files, sha256 checked)\n"
    assert err == ""
    assert asked() == []
    assert not (world / "cache").exists()


def test_the_cache_is_used_before_debians_folder(world: Path) -> None:
    publish(world, "debian")
    folder = publish(world, "cache/fashion_mnist")
    assert fetch() == folder


def test_what_is_nowhere_is_downloaded_once(world: Path) -> None:
    first = FashionMnist().columns(0)
    assert asked() == [file.remote.name for file in fashion_mnist.FILES]
    assert FashionMnist().columns(0).fingerprint == first.fingerprint
    assert fetch() == world / "cache" / "fashion_mnist"
    assert len(asked()) == 4


def test_two_at_once_download_once(world: Path) -> None:
    threads = [threading.Thread(target=FashionMnist().columns, args=(0,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asked()) == 4


def test_a_damaged_cached_file_is_fetched_again(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = publish(world, "cache/fashion_mnist")
    labels = folder / "t10k-labels-idx1-ubyte.gz"
    damage(labels)
    assert fetch() == folder
    assert asked() == [labels.name]
    assert f"{labels}: is not Fashion-MNIST's" in capsys.readouterr().err
    assert fetch() == folder
    assert len(asked()) == 1


def test_a_damaged_cached_file_without_a_network(world: Path) -> None:
    folder = publish(world, "cache/fashion_mnist")
    labels = folder / "t10k-labels-idx1-ubyte.gz"
    damage(labels)
    (world / "web" / labels.name).unlink()
    with pytest.raises(EnvironmentFault) as caught:
        fetch()
    assert str(caught.value) == (
        f"{labels.name}: cannot reach {fashion_mnist.MIRRORS[0]}{labels.name}; put the 4 files in {folder}"
    )


def test_a_disk_that_changes_what_is_written(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in fashion_mnist.FILES:
        damage(world / "web" / file.remote.name)
    with pytest.raises(
        EnvironmentFault, match=r"bytes have sha256 .* right after its download; check the disk"
    ):
        fetch()


def test_mirrors_are_https_and_folders() -> None:
    assert all(url.startswith("https://") and url.endswith("/") for url in fashion_mnist.MIRRORS)


def test_the_sample() -> None:
    source = FashionMnist(sample=True)
    header, columns = source.header(), source.columns(0)
    assert header.row_counts == {"train": 300, "test": 100}
    assert "400 of Fashion-MNIST's 70,000 images" in header.note
    assert columns.inputs.shape == (400, 1, 28, 28)
    assert columns.inputs.dtype == np.uint8
    for name, each in (("train", 30), ("test", 10)):
        assert np.bincount(columns.labels["label"][columns.splits[name]]).tolist() == [each] * 10
    assert columns.fingerprint.startswith("15a2afc672c8739d")
    folder = Path(fashion_mnist.__file__).parent / "fashion_mnist_sample"
    assert "Zalando SE" in (folder / "LICENSE").read_text(encoding="utf-8")


def test_fewer_training_images() -> None:
    every = FashionMnist(sample=True).columns(0)
    for rows, counts in ((300, [30] * 10), (50, [5] * 10), (23, [3, 3, 3, 2, 2, 2, 2, 2, 2, 2]), (1, [1])):
        source = FashionMnist(sample=True, rows=rows)
        columns, n_test = source.columns(0), 100
        assert source.header().row_counts == {"train": rows, "test": n_test}
        assert {split: len(of) for split, of in columns.splits.items()} == {"train": rows, "test": n_test}
        assert np.bincount(columns.labels["label"][:rows]).tolist() == counts
        np.testing.assert_array_equal(columns.inputs[rows:], every.inputs[300:])
        np.testing.assert_array_equal(columns.labels["label"][rows:], every.labels["label"][300:])
        kept = {image.tobytes() for image in columns.inputs[:rows]}
        more = FashionMnist(sample=True, rows=min(300, rows + 7)).columns(0)
        assert kept <= {image.tobytes() for image in more.inputs[: -n_test or None]}
        assert (columns.fingerprint == every.fingerprint) == (rows == 300)


def test_the_sample_has_no_more_than_its_images() -> None:
    with pytest.raises(ValidationError) as caught:
        FashionMnist(sample=True, path="x", rows=301)
    assert [error["msg"] for error in caught.value.errors()] == [
        "give either path or sample: true, not both",
        "301 are too many: the sample has 300 training images",
    ]


@needs_the_real_set
def test_the_real_set_and_how_its_sample_was_drawn() -> None:
    columns = FashionMnist(path=str(DEBIAN)).columns(0)
    assert columns.inputs.shape == (70_000, 1, 28, 28)
    assert columns.fingerprint == "fb92d2a350900503bc51552bb9dcc8c6494a0ec4b6148eea0a8d5be5c795dc49"
    labels, drawn = columns.labels["label"], []
    for name, each in (("train", 30), ("test", 10)):
        assert np.bincount(labels[columns.splits[name]]).tolist() == [len(columns.splits[name]) // 10] * 10
        rows = columns.splits[name][order(len(columns.splits[name]), 0, 0, f"sample {name}")]
        wanted = np.sort(np.concatenate([np.flatnonzero(labels[rows] == c)[:each] for c in range(10)]))
        drawn.append(rows[wanted])
    sample = FashionMnist(sample=True).columns(0)
    np.testing.assert_array_equal(sample.inputs, columns.inputs[np.concatenate(drawn)])
    np.testing.assert_array_equal(sample.labels["label"], labels[np.concatenate(drawn)])


@needs_the_real_set
@pytest.mark.parametrize("file", FILES, ids=[file.name for file in FILES])
def test_debians_copy_is_the_published_one_without_name_and_time(file: fashion_mnist._File) -> None:
    packed = (DEBIAN / file.remote.name).read_bytes()
    time = PUBLISHED[file.name].to_bytes(4, "little")
    published = b"\x1f\x8b\x08\x08" + time + b"\x00\x03" + file.name.encode() + b"\0" + packed[10:]
    assert len(published) == file.remote.size
    assert hashlib.sha256(published).hexdigest() == file.remote.sha256


def test_importing_the_source_loads_nothing_heavy() -> None:
    heavy = ("torch", "scipy", "pyarrow", "matplotlib", "requests", "rich")
    code = f"import sys, mtl.sources.fashion_mnist; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ, timeout=60
    )
    assert done.stdout == "[]\n"


# --- through the command line ---


LABELS = "train-labels-idx1-ubyte.gz"


def run_on(capsys: Capture, *overrides: str) -> Callable[[], Done]:
    return lambda: called(capsys, "run", "fashion_stitch", *overrides)


def gz(values: npt.NDArray[np.uint8]) -> bytes:
    return gzip.compress(idx.write(values), mtime=0)


def idx_faults() -> dict[str, tuple[bytes, str]]:
    """Bytes of the file of 12 training labels, and what is said of them."""
    labels = np.arange(12, dtype=np.uint8) % 10
    plain, packed = idx.write(labels), gz(labels)
    flipped = bytearray(packed)
    flipped[14] ^= 0x10
    return {
        "empty": (b"", "the file is empty; get the file again"),
        "empty_gz": (gzip.compress(b""), "holds 0 bytes, which is less than an IDX header"),
        "not_gz": (b"<!DOCTYPE html>", "is neither gzip nor IDX: it starts with b'<!DOCTYPE'"),
        "truncated": (packed[:-12], "the gzip data end too early, after "),
        "flipped": (bytes(flipped), "the gzip data are damaged after "),
        "wrong_crc": (packed[:-8] + b"abcd" + packed[-4:], "the gzip data are damaged after 0 unpacked bytes (incorr"),
        "junk": (packed + b"junk", "b'junk' follows the end of the gzip data"),
        "two_members": (packed + packed, "holds more than one gzip member; keep the first one only"),
        "bomb": (gzip.compress(plain + bytes(20 << 20), 9), "unpacks to more than the 20 bytes that its IDX header"),
        "magic": (gzip.compress(b"\0\0\x0d\x01" + plain[4:]), "its magic number is 0x00000d01, expected 0x000008"),
        "short": (gzip.compress(plain[:-1]), "holds 19 bytes, its IDX header announces 20"),
        "count": (gz(labels[:11]), "expected 12 labels, file has 11; get the file again"),
        "axes": (gz(labels.reshape(12, 1)), "expected labels of shape (), file has (1,)"),
        "other": (gz(labels), "is not Fashion-MNIST's: its unpacked bytes have sha256 "),
    }  # fmt: skip


@pytest.mark.parametrize("case", idx_faults())
def test_a_damaged_file_of_a_given_folder(
    case: str, world: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world)
    folder = publish(world, "mine")
    data, text = idx_faults()[case]
    (folder / LABELS).write_bytes(data)
    expected = [f"command line: data.source.path: {folder / LABELS}: ", text]
    refused(run_on(capsys, f"data.source.path={folder}"), world, [" ... ".join(expected)])
    assert asked() == []


def test_a_folder_without_the_files(world: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    (world / "none").mkdir()
    text = f"{world / 'none'}: no file train-images-idx3-ubyte.gz or train-images-idx3-ubyte; put the four"
    for command in ("run", "validate"):
        refused(
            lambda command=command: called(capsys, command, "fashion_stitch", "data.source.path=none"),  # type: ignore[misc]
            world,
            [text],
        )

"""Downloads from a server on this machine that misbehaves in every way we know."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from mtl.data.files import download
from mtl.data.files.download import Remote, cache_folder, locked
from mtl.errors import ENVIRONMENT, EnvironmentFault
from mtl.sources import fashion_mnist
from tests.support.assertions import Capture, called

BODY = bytes(range(256)) * 1000
REMOTE = Remote("data.gz", len(BODY), hashlib.sha256(BODY).hexdigest())
TODO = "put the 4 files in /there"
HTML = b"<!DOCTYPE html><html><title>Sign in</title></html>"


class Server(ThreadingHTTPServer):
    """Answers each path with the next of its answers; the last one stays."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, list[tuple[int, bytes, dict[str, str]]]] = {}
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/"

    def on(self, path: str, *answers: tuple[int, bytes] | tuple[int, bytes, dict[str, str]]) -> None:
        self.answers["/" + path] = [(a[0], a[1], a[2] if len(a) > 2 else {}) for a in answers]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.server.headers.append(dict(self.headers))
        answers = self.server.answers.get(self.path, [(404, b"", {})])
        status, body, headers = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """pooch waits between its attempts."""
    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=lambda seconds: None))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("MTL_OFFLINE", raising=False)
    no_pauses(monkeypatch)
    with Server() as running:
        monkeypatch.setattr(download, "ALLOWED", (running.url,))
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def get(server: Server, tmp_path: Path) -> Callable[..., Path]:
    def get(*folders: str) -> Path:
        return download.download(REMOTE, [server.url + folder for folder in folders or ("",)], tmp_path, TODO)

    return get


def fault(get: Callable[..., Path], folder: Path, *folders: str) -> str:
    with pytest.raises(EnvironmentFault) as caught:
        get(*folders)
    assert caught.value.code == ENVIRONMENT
    assert list(folder.iterdir()) == [], "nothing is left behind"
    text = str(caught.value)
    assert text.startswith("data.gz: ")
    assert text.endswith(f"; {TODO}")
    assert "\n" not in text
    return text


def test_fetches_and_says_so_in_a_plain_line(
    server: Server, get: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.on("data.gz", (200, BODY))
    path = get()
    assert path == tmp_path / "data.gz"
    assert path.read_bytes() == BODY
    assert list(tmp_path.iterdir()) == [path]
    assert server.headers[0]["Accept-Encoding"] == "identity"
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "fetching data.gz (256.0 kB) from 127.0.0.1\n"


def test_draws_a_bar_on_a_terminal(
    server: Server,
    get: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    server.on("data.gz", (503, b""), (200, BODY))
    get()
    out, err = capsys.readouterr()
    assert out == ""
    assert "data.gz" in err
    assert "256.0/256.0 kB" in err


def test_what_a_killed_process_left_is_overwritten_and_every_user_may_read_the_file(
    server: Server, get: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "data.gz.part").write_bytes(b"half")
    (tmp_path / "own").touch()
    server.on("data.gz", (200, BODY))
    assert get().stat().st_mode == (tmp_path / "own").stat().st_mode
    assert {path.name for path in tmp_path.iterdir()} == {"data.gz", "own"}


def test_an_html_page_is_not_the_file(server: Server, get: Callable[..., Path], tmp_path: Path) -> None:
    server.on("data.gz", (200, HTML))
    text = fault(get, tmp_path)
    assert f"got {len(HTML)} bytes starting '<!DOCTYPE', expected 256,000 (sha256 {REMOTE.sha256})" in text
    assert server.asked == ["/data.gz"], "asking again would not help"


def test_the_right_size_with_a_wrong_hash(server: Server, get: Callable[..., Path], tmp_path: Path) -> None:
    server.on("data.gz", (200, BODY[::-1]))
    got = hashlib.sha256(BODY[::-1]).hexdigest()
    assert f"got sha256 {got}, expected {REMOTE.sha256}" in fault(get, tmp_path)


def test_an_endless_body_is_cut_off(server: Server, get: Callable[..., Path], tmp_path: Path) -> None:
    server.on("data.gz", (200, BODY * 100))
    assert "got more than 256,000 bytes starting '\\x00" in fault(get, tmp_path)


def test_a_broken_connection_is_tried_three_times(
    server: Server, get: Callable[..., Path], tmp_path: Path
) -> None:
    server.on("data.gz", (200, BODY[:1000], {"Content-Length": str(len(BODY))}))
    text = fault(get, tmp_path)
    assert f"cannot reach {server.url}data.gz ('IncompleteRead(1000 bytes read" in text
    assert len(server.asked) == 3


def test_a_busy_server_is_asked_again(server: Server, get: Callable[..., Path]) -> None:
    server.on("data.gz", (503, b"busy"), (429, b"busy"), (200, BODY))
    assert get().read_bytes() == BODY
    assert len(server.asked) == 3


def test_the_next_mirror_is_tried_and_all_are_named(
    server: Server, get: Callable[..., Path], tmp_path: Path
) -> None:
    server.on("a/data.gz", (200, HTML))
    server.on("b/data.gz", (500, b""))
    text = fault(get, tmp_path, "a/", "b/", "c/")
    assert f"{server.url}a/data.gz: got {len(HTML)} bytes" in text
    assert f"cannot reach {server.url}b/data.gz (it answered 500 'Internal Server Error')" in text
    assert f"{server.url}c/data.gz: it answered 404 'Not Found'" in text
    server.on("c/data.gz", (200, BODY))
    assert get("a/", "b/", "c/").read_bytes() == BODY


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_pauses(monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    monkeypatch.setattr(download, "ALLOWED", (url,))
    try:
        raise KeyError("what the caller is busy with is not the reason")
    except KeyError:
        with pytest.raises(EnvironmentFault) as caught:
            download.download(REMOTE, [url], tmp_path, TODO)
    text = str(caught.value)
    assert text == f"data.gz: cannot reach {url}data.gz ('Connection refused'); {TODO}"


def test_offline_mode_asks_nobody(
    server: Server, get: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MTL_OFFLINE", "1")
    assert "data.gz (MTL_OFFLINE is set); put the 4 files in" in fault(get, tmp_path)
    assert server.asked == []


def test_only_https(
    server: Server, get: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = f"http://localhost:{server.server_port}/data.gz"
    server.on("data.gz", (302, b"", {"Location": elsewhere}))
    text = fault(get, tmp_path)
    assert "is not an https address" in text
    assert "localhost" in text
    assert server.asked == ["/data.gz"], "the redirect is not followed"
    server.on("data.gz", (302, b"", {"Location": "/moved"}))
    server.on("moved", (200, BODY))
    assert get().read_bytes() == BODY
    (tmp_path / "data.gz").unlink()
    monkeypatch.setattr(download, "ALLOWED", ("https://",))
    server.asked.clear()
    assert "is not an https address" in fault(get, tmp_path)
    assert server.asked == []


def test_a_full_disk(
    server: Server, get: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    server.on("data.gz", (200, BODY))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentFault, match="cannot write: No space left on device; set MTL_CACHE to ano"):
        get()
    assert list(tmp_path.iterdir()) == []


def test_the_cache_is_where_the_variable_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTL_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("MTL_CACHE", "~/somewhere")
    assert cache_folder() == Path.home() / "somewhere"
    monkeypatch.setenv("MTL_CACHE", "")
    assert cache_folder().name == "mtl"
    assert cache_folder().is_absolute()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(EnvironmentFault, match="file/cache: cannot write: Not a directory; set M"),
        locked(tmp_path / "file" / "cache"),
    ):
        pass


def test_one_at_a_time_holds_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order = []
    waiting = threading.Event()

    def second() -> None:
        waiting.set()
        with locked(tmp_path / "new"):
            order.append("second")

    with locked(tmp_path / "new"):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(5)
        thread.join(0.2)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]
    assert f"waiting for the process that is filling {tmp_path / 'new'}" in capsys.readouterr().err


def test_an_error_while_the_folder_is_held_passes_through(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="own"), locked(tmp_path):
        raise OSError("own")


# --- through the command line: `mtl run` on Fashion-MNIST with an empty cache ---


FIRST = "train-images-idx3-ubyte.gz"
SIZE, SHA256 = "26,421,880", "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"


@pytest.fixture
def world(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, two mirrors on this machine, an empty cache and no Debian package."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fashion_mnist, "MIRRORS", (f"{server.url}one/", f"{server.url}two/"))
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "debian")
    monkeypatch.setenv("MTL_CACHE", str(tmp_path / "cache"))
    return tmp_path


def failed(capsys: Capture, world: Path) -> str:
    """The error of a run; what came before it on stderr are the lines of progress."""
    done = called(capsys, "run", "fashion_stitch", "train.epochs=1")
    assert done.returncode == ENVIRONMENT
    assert done.stdout == ""
    *progress, line = done.stderr.splitlines()
    assert all(said.startswith(f"fetching {FIRST} (26.4 MB) from 127.0.0.1") for said in progress)
    assert line.startswith("error: ")
    assert line.isprintable()
    assert not (world / "runs").exists()
    assert [p.name for p in (world / "cache" / "fashion_mnist").iterdir()] == [".lock"], "no .part either"
    return line


def test_d41_a_page_instead_of_the_data(world: Path, server: Server, capsys: Capture) -> None:
    for mirror in ("one", "two"):
        server.on(f"{mirror}/{FIRST}", (200, HTML))
    line = failed(capsys, world)
    got = f"got {len(HTML)} bytes starting '<!DOCTYPE', expected {SIZE} (sha256 {SHA256})"
    for mirror in ("one", "two"):
        assert f"{server.url}{mirror}/{FIRST}: {got}" in line
    assert line.endswith(f"; put the 4 files in {world}/cache/fashion_mnist")
    assert server.asked == [f"/one/{FIRST}", f"/two/{FIRST}"]


def test_d42_the_right_size_and_other_bytes(
    world: Path, server: Server, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = fashion_mnist.FILES
    small = dataclasses.replace(files[0], remote=dataclasses.replace(files[0].remote, size=len(BODY)))
    monkeypatch.setattr(fashion_mnist, "FILES", (small, *files[1:]))
    for mirror in ("one", "two"):
        server.on(f"{mirror}/{FIRST}", (200, BODY))
    done = called(capsys, "run", "fashion_stitch")
    assert done.returncode == ENVIRONMENT
    line = done.stderr.splitlines()[-1]
    assert line.count(f"got sha256 {REMOTE.sha256}, expected {SHA256}") == 2
    assert server.asked == [f"/one/{FIRST}", f"/two/{FIRST}"], "the next mirror is tried"
    assert [p.name for p in (world / "cache" / "fashion_mnist").iterdir()] == [".lock"]


def test_d43_no_network(world: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    monkeypatch.setattr(download, "ALLOWED", (url,))
    monkeypatch.setattr(fashion_mnist, "MIRRORS", (url,))
    todo = f"put the 4 files in {world}/cache/fashion_mnist"
    text = f"data.source: {FIRST}: cannot reach {url}{FIRST} ('Connection refused'); {todo}"
    assert failed(capsys, world).endswith(text)


def test_d43_offline(world: Path, server: Server, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTL_OFFLINE", "1")
    line = failed(capsys, world)
    assert f"cannot reach {server.url}one/{FIRST} (MTL_OFFLINE is set)" in line
    assert server.asked == []


def test_d44_a_cached_file_that_was_damaged_later(world: Path, server: Server, capsys: Capture) -> None:
    cache = world / "cache" / "fashion_mnist"
    cache.mkdir(parents=True)
    for file in fashion_mnist.FILES:
        (cache / file.remote.name).write_bytes(b"\x1f\x8b\x08\0 damaged")
    done = called(capsys, "run", "fashion_stitch")
    assert done.returncode == ENVIRONMENT
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0].startswith(f"{cache / FIRST}: the gzip data ")
    assert lines[0].endswith("; not used")
    assert f"data.source: {FIRST}: {server.url}one/{FIRST}: it answered 404 'Not Found'" in lines[-1]
    assert server.asked == [f"/one/{FIRST}", f"/two/{FIRST}"], "fetched once from each mirror"
    assert not (world / "runs").exists()

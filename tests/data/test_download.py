"""Downloads from a server on this machine that misbehaves in every way we know."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mtl.data import download
from mtl.data.download import Remote, cache_folder, locked
from mtl.errors import ENVIRONMENT, EnvironmentFault

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


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("MTL_OFFLINE", raising=False)
    monkeypatch.setattr(download, "PAUSES", (0.0, 0.0))
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
    assert err == "fetching data.gz (0.3 MB) from 127.0.0.1\n"


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
    monkeypatch.setattr(download, "PAUSES", (0.0,))
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

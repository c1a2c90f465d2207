"""Fetching a file whose size and hash are known, into a cache that several processes share."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, NoReturn
from urllib.parse import urljoin, urlsplit

from mtl.errors import EnvironmentFault, quoted
from mtl.signals import undoing

if TYPE_CHECKING:
    import requests

ALLOWED = ("https://",)
"""What an address, and every address that it redirects to, starts with."""
CONNECT_SECONDS, READ_SECONDS = 10.0, 30.0
PAUSES = (0.5, 1.5)
"""Seconds before the second and the third attempt at one address."""
CHUNK = 1 << 16


@dataclass(frozen=True)
class Remote:
    """A file on the internet: its name, its size in bytes and its sha256 in hex."""

    name: str
    size: int
    sha256: str


class UnusableError(Exception):
    """An address gave something else than the file; trying it again will not help."""


class UnreachableError(Exception):
    """An address gave no answer, or one that may be better later."""


def say(line: str) -> None:
    """One line of progress."""
    print(line, file=sys.stderr, flush=True)


def cache_folder() -> Path:
    """`MTL_CACHE`, or else the user's cache folder for `mtl`."""
    chosen = os.environ.get("MTL_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    import pooch

    return Path(pooch.os_cache("mtl"))


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make `folder`, and hold it alone among all processes; waits while another one holds it.

    Raises:
        EnvironmentFault: the folder cannot be made or written to.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(open(folder / ".lock", "ab"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"waiting for the process that is filling {folder}")
                fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            cannot_write(folder, error)
        yield


def cannot_write(place: Path, error: OSError) -> NoReturn:
    raise EnvironmentFault(
        str(place),
        f"cannot write: {error.strerror or error}",
        "set MTL_CACHE to another folder",
    ) from error


def download(remote: Remote, mirrors: Sequence[str], folder: Path, todo: str) -> Path:
    """Fetch one file from the first mirror that has it; it gets its name only once it is verified.

    Each mirror is tried three times while it does not answer, and once if it answers with something else.
    The caller holds the folder by `locked`. `MTL_OFFLINE` set to anything keeps it off the network.

    Args:
        remote: what to fetch.
        mirrors: addresses of folders, ending in a slash, in order of preference.
        folder: where to put it.
        todo: what the user can do if no mirror works.

    Returns:
        Its path, `folder / remote.name`.

    Raises:
        EnvironmentFault: no mirror gave the file, or it could not be written.
    """
    import pooch  # noqa: F401  # both now: a signal that raises in the midst of an import may be lost
    import requests  # noqa: F401

    final, part = folder / remote.name, folder / f"{remote.name}.part"
    problems = []
    with undoing():
        for mirror in mirrors:
            url = mirror + remote.name
            try:
                _attempts(remote, url, part)
                os.replace(part, final)
                return final
            except UnreachableError as problem:
                problems.append(f"cannot reach {url} ({problem})")
            except UnusableError as problem:
                problems.append(f"{url}: {problem}")
            except OSError as error:
                cannot_write(part, error)
            finally:
                part.unlink(missing_ok=True)
    raise EnvironmentFault(remote.name, ", ".join(problems), todo)


def _attempts(remote: Remote, url: str, part: Path) -> None:
    for pause in PAUSES:
        try:
            return _fetch(remote, url, part)
        except UnreachableError:
            if os.environ.get("MTL_OFFLINE"):
                raise
            time.sleep(pause)
    return _fetch(remote, url, part)


def _fetch(remote: Remote, url: str, part: Path) -> None:
    """One attempt; `part` holds the verified file when it returns."""
    if os.environ.get("MTL_OFFLINE"):
        raise UnreachableError("MTL_OFFLINE is set")
    _check_address(url)
    import pooch
    import requests

    with open(part, "wb") as file, _progress(remote, url) as bar:
        body = _Body(file, remote)
        fetch = pooch.HTTPDownloader(
            progressbar=bar or False,
            chunk_size=CHUNK,
            timeout=(CONNECT_SECONDS, READ_SECONDS),
            headers={"Accept-Encoding": "identity"},  # the gz itself, not what a server unpacks it to
            hooks={"response": _check_redirect},
        )
        try:
            fetch(url, body, None)
        except requests.HTTPError as error:
            assert error.response is not None  # raise_for_status always gives it
            status = error.response.status_code
            problem = f"it answered {status} {quoted(error.response.reason)}"
            raise (UnreachableError if status >= 500 or status == 429 else UnusableError)(problem) from error
        except requests.RequestException as error:
            raise UnreachableError(_reason(error)) from error
        body.verify()
        file.flush()
        os.fsync(file.fileno())


def _reason(error: BaseException) -> str:
    """The first cause in words; requests and urllib3 wrap it in two or three layers."""
    import urllib3

    while isinstance(inner := error.__cause__ or error.__context__, OSError | urllib3.exceptions.HTTPError):
        error = inner
    return quoted(getattr(error, "strerror", None) or str(error) or type(error).__name__)


class _Body:
    """The file being fetched, as pooch writes it: bounded in size, and hashed on the way."""

    def __init__(self, file: IO[bytes], remote: Remote) -> None:
        self.file, self.remote = file, remote
        self.size, self.start, self.hash = 0, b"", hashlib.sha256()

    def write(self, chunk: bytes) -> None:
        self.start = self.start or chunk[:9]
        self.size += len(chunk)
        if self.size > self.remote.size:
            self._wrong_size(f"more than {self.remote.size:,}")
        self.hash.update(chunk)
        self.file.write(chunk)

    def flush(self) -> None:
        self.file.flush()

    def verify(self) -> None:
        if self.size != self.remote.size:
            self._wrong_size(f"{self.size:,}")
        if self.hash.hexdigest() != self.remote.sha256:
            raise UnusableError(f"got sha256 {self.hash.hexdigest()}, expected {self.remote.sha256}")

    def _wrong_size(self, got: str) -> NoReturn:
        start = quoted(self.start.decode("latin-1"))
        raise UnusableError(
            f"got {got} bytes starting {start}, expected {self.remote.size:,} (sha256 {self.remote.sha256})"
        )


def _check_address(url: str) -> None:
    if not url.startswith(ALLOWED):
        raise UnusableError(f"{quoted(url)} is not an https address")


def _check_redirect(response: requests.Response, **_: object) -> None:
    if response.is_redirect:
        _check_address(urljoin(response.url, response.headers["location"]))


class _Bar:
    """A rich progress bar with the methods that pooch calls."""

    def __init__(self, remote: Remote) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self.progress = Progress(*columns, console=Console(stderr=True))
        self.task = self.progress.add_task(remote.name, total=remote.size)
        self.total = remote.size

    def update(self, n: int) -> None:
        self.progress.advance(self.task, n)

    def reset(self) -> None:
        self.progress.update(self.task, completed=0)

    def close(self) -> None:
        self.progress.refresh()


@contextlib.contextmanager
def _progress(remote: Remote, url: str) -> Iterator[_Bar | None]:
    if not sys.stderr.isatty():
        say(f"fetching {remote.name} ({remote.size / 1e6:.1f} MB) from {urlsplit(url).hostname}")
        yield None
        return
    bar = _Bar(remote)
    with bar.progress:
        yield bar

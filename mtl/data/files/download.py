"""Downloads a file of known size and hash into a cache that several processes share."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, NoReturn
from urllib.parse import urljoin, urlsplit

from mtl.console import file_size
from mtl.errors import EnvironmentFault, quoted
from mtl.signals import undoing

if TYPE_CHECKING:
    import requests

ALLOWED = ("https://",)
"""Allowed beginnings of an address and of every address that it redirects to."""
CONNECT_SECONDS, READ_SECONDS = 10.0, 30.0
RETRIES = 2
"""Attempts at one address after the first one; pooch pauses 1 s before the second and 2 s before the third."""
CHUNK = 1 << 16
ROWS = "rows"
"""The folder of the cache that holds the stores of encoded rows."""


@dataclass(frozen=True)
class Remote:
    """A file on the internet: its name, its size in bytes and its sha256 in hex."""

    name: str
    size: int
    sha256: str


class UnusableError(Exception):
    """An address gave something else than the file. A second attempt would give the same, so pooch makes none."""


class OfflineError(Exception):
    """`MTL_OFFLINE` forbids the network."""


def say(line: str) -> None:
    """Print one line of progress."""
    print(line, file=sys.stderr, flush=True)


def cache_folder() -> Path:
    """The folder in `MTL_CACHE`, or else the user's cache folder for `mtl`."""
    chosen = os.environ.get("MTL_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    import pooch

    return Path(pooch.os_cache("mtl"))


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make `folder`, and lock it against all other processes; wait while another one holds the lock.

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
    """Turn an OSError into a fault of the machine that names the place.

    Raises:
        EnvironmentFault: always.
    """
    raise EnvironmentFault(
        str(place),
        f"cannot write: {error.strerror or error}",
        "set MTL_CACHE to another folder",
    ) from error


def download(remote: Remote, mirrors: Sequence[str], folder: Path, todo: str) -> Path:
    """Download one file from the first mirror that has it; the file gets its name only after it is verified.

    A mirror that does not answer is tried three times, a mirror that answers with something else once.
    The caller locks the folder by `locked`. If `MTL_OFFLINE` is set, the network is not used.

    Args:
        remote: the file.
        mirrors: addresses of folders, each with a slash at its end, in order of preference.
        folder: the folder that will hold the file.
        todo: advice to the user for the case that no mirror works.

    Returns:
        The path, `folder / remote.name`.

    Raises:
        EnvironmentFault: no mirror gave the file, or it could not be written.
    """
    import pooch
    import requests

    pooch.get_logger().setLevel("ERROR")  # it would report each attempt on stderr in its own words
    part, problems = folder / f"{remote.name}.part", []
    with undoing():
        for mirror in mirrors:
            url = mirror + remote.name
            registry = pooch.create(
                folder, mirror, registry={remote.name: remote.sha256}, retry_if_failed=RETRIES
            )
            try:
                return Path(registry.fetch(remote.name, downloader=_Attempt(remote, part)))
            except (OfflineError, requests.RequestException) as problem:
                problems.append(f"cannot reach {url} ({_reason(problem)})")
            except UnusableError as problem:
                problems.append(f"{url}: {problem}")
            except OSError as error:
                cannot_write(part, error)
    raise EnvironmentFault(remote.name, ", ".join(problems), todo)


@dataclass(frozen=True)
class _Attempt:
    """One attempt at an address, called by pooch; it raises a RequestException if pooch shall try again.

    It does four things that pooch does not: it follows https only, stops at the known size, tells a wrong file from
    a failed connection, and writes through `.part`. That file has the user's permissions, is on the disk before it is
    renamed, and is overwritten by the next attempt if this process is killed.
    """

    remote: Remote
    part: Path

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        if os.environ.get("MTL_OFFLINE"):
            raise OfflineError("MTL_OFFLINE is set")
        _check_address(url)
        from pooch import HTTPDownloader

        fetch = HTTPDownloader(
            chunk_size=CHUNK,
            timeout=(CONNECT_SECONDS, READ_SECONDS),
            headers={"Accept-Encoding": "identity"},  # the gz itself, not the unpacked file
            hooks={"response": _check_response},
        )
        try:
            with open(self.part, "wb") as file, progress(self.remote.name, self.remote.size, url) as advance:
                body = _Body(file, self.remote, advance)
                fetch(url, body, pooch)
                body.verify()
                file.flush()
                os.fsync(file.fileno())
            os.replace(self.part, output_file)
        finally:
            self.part.unlink(missing_ok=True)


def _reason(error: BaseException) -> str:
    """The first cause in words; requests and urllib3 wrap it in two or three layers."""
    import requests
    import urllib3

    if isinstance(error, OfflineError):
        return str(error)
    if isinstance(error, requests.HTTPError):
        assert error.response is not None  # raise_for_status always gives it
        return _answer(error.response)
    while isinstance(inner := error.__cause__ or error.__context__, OSError | urllib3.exceptions.HTTPError):
        error = inner
    return quoted(getattr(error, "strerror", None) or str(error) or type(error).__name__)


class _Body:
    """The file during the download, as pooch writes it: its size is bounded, and its hash is computed on the way."""

    def __init__(self, file: IO[bytes], remote: Remote, advance: Callable[[int], object]) -> None:
        self.file, self.remote, self.advance = file, remote, advance
        self.size, self.start, self.hash = 0, b"", hashlib.sha256()

    def write(self, chunk: bytes) -> None:
        self.start = self.start or chunk[:9]
        self.size += len(chunk)
        if self.size > self.remote.size:
            self._wrong_size(f"more than {self.remote.size:,}")
        self.hash.update(chunk)
        self.file.write(chunk)
        self.advance(len(chunk))

    def flush(self) -> None:
        self.file.flush()

    def verify(self) -> None:
        """Check the size and the hash of what was written."""
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


def _check_response(response: requests.Response, **_: object) -> None:
    """Refuse a redirect to an address that is not https, and an answer that would be the same next time."""
    if response.is_redirect:
        _check_address(urljoin(response.url, response.headers["location"]))
    elif 400 <= response.status_code < 500 and response.status_code != 429:
        raise UnusableError(_answer(response))


def _answer(response: requests.Response) -> str:
    return f"it answered {response.status_code} {quoted(response.reason)}"


@contextlib.contextmanager
def progress(what: str, size: int, url: str) -> Iterator[Callable[[int], object]]:
    """Report a download: a terminal shows a bar, which is told of arriving bytes; other outputs get one line.

    Args:
        what: what is fetched.
        size: its bytes.
        url: where it comes from; the name of the host or bucket is shown.
    """
    if not sys.stderr.isatty():
        say(f"fetching {what} ({file_size(size)}) from {urlsplit(url).hostname}")
        yield lambda n: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=size)
        yield lambda n: bar.advance(task, n)

"""Asks an object store which files an address leads to, and explains why it gives none."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mtl.data.files.pattern import EVERYTHING, Pattern, is_pattern, require_parquet, split_pattern
from mtl.data.files.remote.address import PACKAGES, fault_of, protocol_of, without_protocol
from mtl.errors import EnvironmentFault, UserError, quoted

VERSIONS = ("ETag", "etag", "generation", "blob_id", "LastModified", "mtime")
"""What a store may tell of the version of a file; the first that it tells counts, beside the size."""
CONNECT_SECONDS, READ_SECONDS = 10, 30
DENIED = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "DefaultCredentialsError", "RefreshError",
          "GatedRepoError", "LocalTokenNotFoundError")  # fmt: skip
"""Names of exceptions of the packages which mean that credentials are missing or refused."""


@dataclass(frozen=True)
class RemoteFile:
    """One file of an object store.

    Args:
        name: its path from the folder of the listing, with slashes; of a single file its name.
        address: where the store has it, without the beginning such as `s3://`.
        size: its bytes.
        version: what changes when it is written to.
    """

    name: str
    address: str
    size: int
    version: str

    @property
    def key(self) -> str:
        """Names this version of the file in the cache."""
        return hashlib.sha256(repr((self.address, self.size, self.version)).encode()).hexdigest()[:40]


@dataclass(frozen=True)
class Listing:
    """What an address leads to.

    Args:
        address: the address.
        folder: the bucket and the folder of a data set; None for a single file.
        pattern: the pattern below the folder; empty if the address is that of a folder.
        files: the files.
    """

    address: str
    folder: str | None
    pattern: tuple[str, ...]
    files: tuple[RemoteFile, ...]


def file_system(address: str) -> Any:
    """fsspec's access to the store of an address. Credentials come from the environment and from configurations.

    Raises:
        UserError: the address is refused.
        EnvironmentFault: the package of the store is not installed, or `MTL_OFFLINE` is set.
    """
    fault = fault_of(address)
    if fault is not None:
        raise UserError("", *fault, path=("path",))
    protocol = protocol_of(address)
    if os.environ.get("MTL_OFFLINE"):
        raise EnvironmentFault(address, "MTL_OFFLINE is set", "unset it, or name files on this machine")
    try:
        import fsspec

        fsspec.get_filesystem_class(protocol)
    except ImportError:
        wanted = "'mtl-recipes[remote]'" if protocol == "s3" else PACKAGES[protocol]
        what = f"{PACKAGES[protocol]} is not installed, which reads {protocol}://"
        raise EnvironmentFault(address, what, f"pip install {wanted}") from None
    with explained(address):
        # a new one each time: it would remember credentials and listings of an earlier command of the process
        return fsspec.filesystem(protocol, skip_instance_cache=True, **_options(protocol))


def _options(protocol: str) -> dict[str, Any]:
    """Limits of time for a store that does not answer, unless the user's configuration of fsspec has its own."""
    from fsspec.config import conf

    if protocol != "s3" or "config_kwargs" in conf.get("s3", {}):
        return {}
    # s3fs tries five times by itself
    limits = {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        "retries": {"max_attempts": 1},
    }
    return {"config_kwargs": limits}


def listing_of(files: Any, address: str) -> Listing:
    """The files that an address leads to, with their sizes and versions.

    Raises:
        UserError: there are none.
        EnvironmentFault: the store cannot be reached, or denies access.
    """
    whole = without_protocol(address)
    root, parts = split_pattern(whole) if is_pattern(whole) else (whole, ())
    with explained(address):
        found = files.info(root)
        if found["type"] == "file" and not parts:
            return Listing(address, None, (), (_file(root.rsplit("/", 1)[-1], found, address),))
        below = files.find(
            found["name"], maxdepth=None if "**" in parts or not parts else len(parts), detail=True
        )
    pattern, start = Pattern(parts or EVERYTHING), found["name"].rstrip("/") + "/"
    # a name that ends with a slash is a folder that somebody made in a store without folders
    named = {name.removeprefix(start): entry for name, entry in below.items() if not name.endswith("/")}
    taken = [_file(name, named[name], address) for name in sorted(named) if pattern.fits(name)]
    require_parquet([file.name for file in taken], address, of_folder=not parts)
    for file in taken:
        if "\0" in file.name or not {"", ".", ".."}.isdisjoint(file.name.split("/")):
            raise UserError(
                address, f"file {quoted(file.name)} has a name that no disk can hold", path=("path",)
            )
    return Listing(address, root, parts, tuple(taken))


def _file(name: str, entry: Mapping[str, Any], address: str) -> RemoteFile:
    version = next((str(entry[key]) for key in VERSIONS if entry.get(key)), None)
    if version is None or not isinstance(entry.get("size"), int):
        raise UserError(address, f"the store tells no size or version of {quoted(name)}", path=("path",))
    return RemoteFile(name, entry["name"], entry["size"], version)


@contextmanager
def explained(address: str) -> Iterator[None]:
    """Turn what a package raises inside into one line of our own words, since its texts may tell of credentials.

    Raises:
        UserError: there is no such file.
        EnvironmentFault: access is denied, the store cannot be reached, or something else went wrong.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(address, "no such file, folder or bucket", path=("path",)) from None
    except Exception as error:
        chain = list(_causes(error))
        if any(isinstance(each, PermissionError) or type(each).__name__ in DENIED for each in chain):
            what, todo = (
                "access is denied",
                "check the credentials of the environment, and the rights that they give",
            )
        elif any(type(each).__name__ == "FileExpired" for each in chain):
            what, todo = "was changed while it was read", "start again once it is whole"
        else:
            why = next(filter(None, map(_code, chain)), type(error).__name__)
            what, todo = f"cannot be read ({why})", "check the network, and the address of the store"
        raise EnvironmentFault(address, what, todo) from None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _code(error: BaseException) -> str | None:
    """The code of an answer, such as InvalidBucketName, or the kind of a failed connection."""
    response = getattr(error, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    return code if isinstance(code, str) and re.fullmatch(r"[A-Za-z0-9]{1,40}", code) else None

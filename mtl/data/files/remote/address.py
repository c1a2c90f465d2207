"""Which paths of data are addresses, and which addresses are refused."""

from __future__ import annotations

import re

from mtl.errors import quoted

PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub"}
"""The beginning of an address -> the package by which fsspec reads it."""
BEGINNING = re.compile(r"([A-Za-z][A-Za-z0-9+.:-]*)://")
QUERY = re.compile(r"\?[^/]*=")
"""A query; the sign of a pattern that stands for one character has no `=` behind it."""


def is_address(path: str) -> bool:
    """Whether a path is an address, such as `s3://bucket/rows.parquet`, rather than a path on disk."""
    return BEGINNING.match(path) is not None


def protocol_of(address: str) -> str:
    """The beginning of an address without `://`, in lower case."""
    found = BEGINNING.match(address)
    assert found is not None
    return found[1].lower()


def without_protocol(address: str) -> str:
    """The bucket and what follows."""
    return BEGINNING.sub("", address, count=1).strip("/")


def fault_of(address: str) -> tuple[str, str] | None:
    """What is wrong with an address, and what to do; None if nothing is. The text holds nothing of the address.

    Credentials belong into the environment or the configuration of fsspec's packages: a recipe is copied into run
    folders, and an address into messages.
    """
    protocol, rest = protocol_of(address), without_protocol(address)
    if protocol not in PACKAGES:
        known = ", ".join(f"{name}://" for name in PACKAGES)
        return f"mtl reads {known} and paths on disk, not {quoted(protocol + '://')}", "download the files"
    # a secret may have slashes; only hf:// has an @ of its own, in front of a revision
    if ":" in rest.split("/")[0] or "@" in (rest.split("/")[0] if protocol == "hf" else rest):
        return "the address holds credentials", "leave them to the environment, and write the bucket alone"
    if QUERY.search(rest):
        return "the address has a query, which may hold credentials", "leave it out"
    if not rest.isprintable() or {"..", "."} & set(rest.split("/")) or "*" in rest.split("/")[0] or not rest:
        return "the address names no bucket and file", f"write it as {protocol}://bucket/folder/file"
    return None

"""Safetensors files are written and read one tensor after the other, so that memory never holds a whole file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mtl.runs.json_text import strict_json

PIECE = 16 << 20
"""This many bytes are written, hashed or moved from a device at once."""
NAMES = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""torch's type -> its name in safetensors, in the order of the file: the widest first, so that all are aligned."""
_RANK = {dtype: rank for rank, dtype in enumerate(NAMES)}


class TensorFile:
    """A safetensors file in pieces, which together equal the bytes of `safetensors.torch.save`.

    The format has three parts: the header's length in 8 bytes, the header as JSON padded to 8 bytes, and the tensors'
    bytes in row-major order. A piece is a view of its tensor if possible, so no step may change the tensors before
    the file is written.

    Args:
        tensors: name -> tensor, on any device and in any layout.

    Source: https://huggingface.co/docs/safetensors, "Format".
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = dict(sorted(tensors.items(), key=lambda item: (_RANK[item[1].dtype], item[0])))

    def __iter__(self) -> Iterator[bytes | memoryview]:
        yield self._header()
        for tensor in self.tensors.values():
            yield from bytes_of(tensor.detach())

    def _header(self) -> bytes:
        entries, start = {}, 0
        for name, tensor in self.tensors.items():
            end = start + tensor.nbytes
            shape = list(tensor.shape)
            entries[name] = {"dtype": NAMES[tensor.dtype], "shape": shape, "data_offsets": [start, end]}
            start = end
        text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text


def bytes_of(tensor: Tensor) -> Iterator[memoryview]:
    """The bytes of a tensor, row after row; a tensor in another layout or on a device is copied piece by piece."""
    if tensor.nbytes == 0:
        return
    rows = tensor.view(-1) if tensor.is_contiguous() else tensor
    count = max(1, PIECE * len(rows) // tensor.nbytes)
    for part in rows.split(count):
        flat = part.cpu().contiguous().view(-1)
        yield memoryview(flat.view(torch.uint8).numpy())


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The library's reader of a file; it would take the last of two tensors of one name without a word."""
    with safe_open(path, framework="pt") as file:
        with path.open("rb") as plain:
            text = plain.read(int.from_bytes(plain.read(8), "little"))  # the library has checked this length
        try:
            strict_json(text)
        except ValueError as error:
            raise SafetensorError(f"its header: {error}") from None
        yield file


def read_shapes(path: Path) -> dict[str, Tensor]:
    """Name -> a tensor of the file's shape and type on the meta device; only the header is read.

    Raises:
        SafetensorError, OSError: the path is not a safetensors file.
    """
    types = {name: dtype for dtype, name in NAMES.items()}
    with _opened(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {
            name: torch.empty(own.get_shape(), dtype=types[own.get_dtype()], device="meta")
            for name, own in slices.items()
        }


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Name -> a tensor with its own memory; the file is mapped into memory only during the copy.

    Raises:
        SafetensorError, OSError: the path is not a safetensors file.
    """
    with _opened(path) as file:
        return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118

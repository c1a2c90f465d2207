"""Tensors as safetensors files that are written and read one tensor after the other, never in memory as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

PIECE = 16 << 20
"""Bytes that are written, hashed or moved from a device in one go."""
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
"""What safetensors calls a type, in the order in which it puts them: the widest first, so that all are aligned."""
_RANK = {dtype: rank for rank, dtype in enumerate(NAMES)}


class TensorFile:
    """A safetensors file in pieces; together they are the bytes of `safetensors.torch.save`.

    Format: 8 bytes of the header's length, the header as JSON, padded to 8 bytes, and the tensors' bytes in row-major
    order. A piece is a view of its tensor where that is possible: until the file is written, no step may change them.

    Args:
        tensors: name -> tensor, on any device and in any layout.

    Source: https://huggingface.co/docs/safetensors, "Format".
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = dict(sorted(tensors.items(), key=lambda item: (_RANK[item[1].dtype], item[0])))

    def __iter__(self) -> Iterator[bytes | memoryview]:
        yield self._header()
        for tensor in self.tensors.values():
            yield from _pieces(tensor.detach())

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


def _pieces(tensor: Tensor) -> Iterator[memoryview]:
    """The bytes of a tensor, row after row; one that is not contiguous, or on a device, is copied by the piece."""
    if tensor.nbytes == 0:
        return
    rows = tensor.view(-1) if tensor.is_contiguous() else tensor
    count = max(1, PIECE * len(rows) // tensor.nbytes)
    for part in rows.split(count):
        flat = part.cpu().contiguous().view(-1)
        yield memoryview(flat.view(torch.uint8).numpy())


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Name -> a tensor with memory of its own; the file is mapped while they are copied.

    Raises:
        SafetensorError, OSError: it is no such file.
    """
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118

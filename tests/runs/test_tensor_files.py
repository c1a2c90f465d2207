"""Files of tensors are those of safetensors, byte for byte, and come without a copy of what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from mtl.runs import tensor_files
from mtl.runs.tensor_files import NAMES, TensorFile, read_shapes, read_tensors


def whole(tensors: Mapping[str, Tensor]) -> bytes:
    return b"".join(TensorFile(tensors))


def library(tensors: Mapping[str, Tensor]) -> bytes:
    """What safetensors itself makes of them."""
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def test_a_file_by_hand() -> None:
    tensors = {"b": torch.tensor([[1, 2]], dtype=torch.int8), "a": torch.tensor(1.5)}
    header = (
        b'{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},'
        b'"b":{"dtype":"I8","shape":[1,2],"data_offsets":[4,6]}}'
    )
    header += b" " * (-len(header) % 8)
    expected = len(header).to_bytes(8, "little") + header + b"\x00\x00\xc0\x3f" + b"\x01\x02"
    assert whole(tensors) == expected


SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)


@given(
    asked=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(lambda name: name != "__metadata__"),
        st.tuples(st.sampled_from(list(NAMES)), SHAPES, st.booleans()),
        max_size=8,
    ),
    piece=st.sampled_from([1, 3, 16, 1 << 20]),
)  # fmt: skip
def test_bytes_are_those_of_safetensors(
    asked: dict[str, tuple[torch.dtype, tuple[int, ...], bool]], piece: int
) -> None:
    """Of every type, shape and layout, whatever the names, however it is cut."""
    tensors = {}
    for i, (name, (dtype, shape, turned)) in enumerate(asked.items()):
        count = torch.Size(shape).numel()
        values = ((torch.arange(count) + i) % 120).to(dtype).reshape(shape)
        tensors[name] = values.mT.contiguous().mT if turned and values.ndim >= 2 else values
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor_files, "PIECE", piece)
        data = whole(tensors)
    assert data == library(tensors)


def test_every_type_that_a_network_has_can_be_saved() -> None:
    from safetensors.torch import _TYPES

    left_out = {name for name, dtype in _TYPES.items() if dtype not in NAMES}
    assert left_out <= {"F8_E4M3FNUZ", "F8_E5M2FNUZ"}  # of AMD's devices only
    assert {name: dtype for name, dtype in _TYPES.items() if name not in left_out} == {
        name: dtype for dtype, name in NAMES.items()
    }


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(24.0).reshape(2, 3, 4, 1).contiguous(memory_format=torch.channels_last),
        torch.arange(12.0).reshape(3, 4)[:, ::2],
        torch.arange(3.0).expand(4, 3),
        torch.nn.Parameter(torch.ones(2, 2)),
        torch.zeros(0, 5),
    ],
    ids=["channels last", "strided", "expanded", "parameter", "empty"],
)
def test_layouts(tensor: Tensor) -> None:
    assert whole({"x": tensor}) == library({"x": tensor})


def test_pieces_are_views_of_what_is_contiguous(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_files, "PIECE", 40)
    tensor = torch.arange(25.0)
    _, *pieces = TensorFile({"x": tensor})
    assert [len(piece) for piece in pieces] == [40, 40, 20]
    tensor.fill_(7)
    assert b"".join(pieces) == tensor.numpy().tobytes()
    turned = torch.arange(100.0).reshape(10, 10).t()
    assert [len(piece) for piece in TensorFile({"x": turned})][1:] == [40] * 10


def test_a_file_can_be_gone_through_again() -> None:
    file = TensorFile({"x": torch.arange(5.0), "y": torch.ones(2, 3)})
    assert b"".join(file) == b"".join(file)


def test_read_tensors_have_memory_of_their_own(tmp_path: Path) -> None:
    tensors = {"x": torch.arange(5.0), "y": torch.tensor(3, dtype=torch.int64), "z": torch.zeros(0, 2)}
    (tmp_path / "f").write_bytes(library(tensors))
    found = read_tensors(tmp_path / "f")
    assert found.keys() == tensors.keys()
    with (tmp_path / "f").open("r+b") as file:  # were they mapped, they would change or be lost
        file.seek(-28, 2)
        file.write(b"\xff" * 28)
        file.truncate(10)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("data", [b"", b"garbage", b"\xff" * 100, library({"x": torch.ones(9)})[:-1]])
def test_what_is_no_such_file(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(data)
    with pytest.raises((SafetensorError, OSError)):
        read_tensors(tmp_path / "f")
    with pytest.raises(OSError, match="No such file"):
        read_tensors(tmp_path / "nothing")


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    tensors = {f"{dtype}": (torch.arange(30) % 7).to(dtype).reshape(5, 6) for dtype in NAMES}
    (tmp_path / "f").write_bytes(whole(tensors))
    for found in (read_tensors(tmp_path / "f"), load(whole(tensors))):
        assert found.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert found[name].dtype == tensor.dtype
            assert torch.equal(found[name].view(torch.uint8), tensor.view(torch.uint8))


def test_two_tensors_of_one_name(tmp_path: Path) -> None:
    """The library itself reads the second one and says nothing."""
    entry = '{"dtype":"F32","shape":[%d],"data_offsets":[0,4]}'
    text = f'{{"x":{entry % 9},"x":{entry % 1}}}'.encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    for read in (read_tensors, read_shapes):
        with pytest.raises(SafetensorError, match=r"^its header: a key is given twice$"):
            read(path)

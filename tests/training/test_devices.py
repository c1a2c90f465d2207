"""Devices are found or refused by name (S27), and a run's settings leave no trace (C10)."""

import pytest
import torch

from mtl.errors import UserError
from mtl.training.devices import memory_format, resolve, settings


def pretend(monkeypatch: pytest.MonkeyPatch, n_cuda: int = 0, mps: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n_cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("n_cuda", "mps", "asked", "expected"),
    [
        (0, False, "auto", "cpu"),
        (0, True, "auto", "mps"),
        (2, True, "auto", "cuda"),
        (2, False, "cuda", "cuda"),
        (2, False, "cuda:1", "cuda:1"),
        (2, True, "cpu", "cpu"),
        (0, True, "mps", "mps"),
    ],
)
def test_resolve(n_cuda: int, mps: bool, asked: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, n_cuda, mps)
    assert str(resolve(asked)) == expected


@pytest.mark.parametrize(
    ("n_cuda", "asked", "text"),
    [
        (0, "cuda", "cuda asked, 0 CUDA devices found; use auto or cpu"),
        (1, "cuda:3", "cuda:3 asked, 1 CUDA device found; use auto or cpu"),
        (2, "cuda:2", "cuda:2 asked, 2 CUDA devices found; use auto or cpu"),
        (2, "mps", "mps asked, no MPS device found; use auto or cpu"),
    ],
)
def test_a_device_that_is_not_there(
    n_cuda: int, asked: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, n_cuda)
    with pytest.raises(UserError) as caught:
        resolve(asked)
    assert str(caught.value) == text


@pytest.mark.skipif(
    torch.cuda.is_available() or torch.backends.mps.is_available(), reason="has an accelerator"
)
def test_auto_here_is_the_cpu() -> None:
    assert resolve("auto") == torch.device("cpu")


def test_memory_format() -> None:
    assert memory_format(torch.device("cpu")) == torch.channels_last
    assert memory_format(torch.device("mps")) == torch.contiguous_format


def global_state() -> tuple[object, ...]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        torch.get_num_threads(),
        torch.get_rng_state().numpy().tobytes(),
    )


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("before", [(True, False), (False, False), (True, True)])
@pytest.mark.parametrize("raises", [False, True])
def test_settings_are_put_back(deterministic: bool, before: tuple[bool, bool], raises: bool) -> None:
    torch.use_deterministic_algorithms(before[0], warn_only=before[1])
    torch.backends.cudnn.benchmark = False
    state = global_state()
    inside: tuple[object, ...] = ()
    try:
        with settings(deterministic, 2):
            inside = global_state()
            torch.manual_seed(99)
            torch.rand(10)
            if raises:
                raise KeyError("x")
    except KeyError:
        assert raises
    assert inside[0] is deterministic
    assert inside[2] is not deterministic
    assert inside[3] == 2
    assert global_state() == state


def test_threads_stay_where_none_are_asked_for() -> None:
    torch.set_num_threads(1)
    with settings(True, None):
        assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    "name", ["", "gpu", "CPU", "cuda:", "cuda:-1", "cuda:1000", "cpu:0", "meta", "cpu\n"]
)
def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve(name)
    assert str(caught.value) == f"no device {name!r}; one of auto, cpu, cuda, cuda:1, mps"

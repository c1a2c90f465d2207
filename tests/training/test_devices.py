"""Devices are found or refused by name (S27), and a run's settings leave no trace (C10)."""

import pytest
import torch

from mtl.errors import UserError
from mtl.training.devices import memory_format, resolve, seed, settings


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


class Generators:
    """Stands in for the CUDA generators of some devices: each is one of the CPU's; counts which are asked for."""

    def __init__(self, patch: pytest.MonkeyPatch, n: int, current: int) -> None:
        self.all = [torch.Generator().manual_seed(1000 + index) for index in range(n)]
        self.asked: list[int] = []
        pretend(patch, n)
        patch.setattr(torch.cuda, "init", lambda: None)
        patch.setattr(torch.cuda, "current_device", lambda: current)
        patch.setattr(torch.cuda, "default_generators", self)

    def __getitem__(self, index: int) -> torch.Generator:
        self.asked.append(index)
        return self.all[index]

    def seeds(self) -> list[int]:
        return [generator.initial_seed() for generator in self.all]


@pytest.mark.parametrize(
    ("name", "current", "expected"),
    [
        ("cuda:1", 0, [1000, 7, 1002]),
        ("cuda:0", 2, [7, 1001, 1002]),
        ("cuda", 2, [1000, 1001, 7]),
        ("cpu", 0, [1000, 1001, 1002]),
    ],
)
def test_the_generator_of_the_device_is_seeded(
    name: str, current: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    generators = Generators(monkeypatch, 3, current)
    with settings(True, None):
        seed(torch.device(name), 7)
        assert generators.seeds() == expected
        assert torch.initial_seed() == 7


def test_only_the_generators_that_were_seeded_are_touched_and_put_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generators = Generators(monkeypatch, 3, 0)
    before = [generator.get_state() for generator in generators.all]

    def other(*given: object) -> None:
        raise AssertionError("the state of a GPU is read or written")

    monkeypatch.setattr(torch.cuda, "get_rng_state", other)
    monkeypatch.setattr(torch.cuda, "set_rng_state", other)
    with settings(True, None):
        assert generators.asked == []
        seed(torch.device("cuda:1"), 7)
        drawn = torch.rand(3, generator=generators.all[1])
        with settings(False, None):
            seed(torch.device("cuda:1"), 8)
            seed(torch.device("cuda:2"), 9)
        torch.testing.assert_close(generators.all[2].get_state(), before[2], rtol=0, atol=0)
        after = torch.rand(3, generator=generators.all[1])
        seed(torch.device("cuda:1"), 7)
        again = torch.rand(6, generator=generators.all[1])
        assert torch.cat([drawn, after]).tolist() == again.tolist()
    assert set(generators.asked) == {1, 2}
    for generator, state in zip(generators.all, before, strict=True):
        assert generator.get_state().tolist() == state.tolist()


def test_a_seed_outside_of_any_settings_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    generators = Generators(monkeypatch, 2, 0)
    with torch.random.fork_rng(devices=[]):
        seed(torch.device("cuda:1"), 7)
    assert generators.seeds() == [1000, 7]

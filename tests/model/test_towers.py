"""The chain of stages, and towers given as separate modules."""

import pytest
import torch
from torch import nn

from mtl.model.layers import GroupedLinear, grouped_conv
from mtl.model.towers import SeparateTowers, Towers


def test_stages_keep_their_names_and_order() -> None:
    towers = Towers(("x",), [("b", nn.ReLU()), ("a", nn.Tanh())], {"b": (4, 2, 2), "a": (3,)})
    assert towers.stage_names == ("b", "a")
    assert list(towers.stages) == ["b", "a"]
    assert towers.shapes == {"b": (4, 2, 2), "a": (3,)}
    assert towers.shape == (3,)  # of what comes out at the end
    assert "towers=['x'], stages=['b', 'a']" in repr(towers)


@pytest.mark.parametrize("name", ["train", "training", "keys", "forward", "half", "type"])
def test_a_name_that_modules_keep_for_themselves_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^a stage cannot be called '{name}': choose another name$"):
        Towers(("x",), [("a", nn.ReLU()), (name, nn.ReLU())], {"a": (1,), name: (1,)})


def test_the_chain_applies_its_stages_in_turn() -> None:
    first, second = GroupedLinear(2, 3, 4, shared_input=True), GroupedLinear(2, 4, 5)
    for stage in (first, second):
        nn.init.normal_(stage.weight)
    towers = Towers(("x", "y"), [("b", first), ("a", second)], {"b": (4,), "a": (5,)})
    x = torch.randn(6, 3)
    assert torch.equal(towers(x), second(first(x)))


@pytest.mark.parametrize("shared_input", [True, False])
@pytest.mark.parametrize("n_towers", [1, 2, 5])
def test_separate_linear_towers_equal_a_grouped_stage(n_towers: int, shared_input: bool) -> None:
    grouped = GroupedLinear(n_towers, 4, 3, shared_input=shared_input).double()
    nn.init.normal_(grouped.weight)
    separate = SeparateTowers(
        [nn.Linear(4, 3, bias=False).double() for _ in range(n_towers)], shared_input=shared_input
    )
    copy(grouped.weight, separate)
    same(grouped, separate, torch.randn(5, 4 if shared_input else n_towers * 4, dtype=torch.float64))


@pytest.mark.parametrize("shared_input", [True, False])
@pytest.mark.parametrize("n_towers", [1, 2, 5])
def test_separate_conv_towers_equal_a_grouped_stage(n_towers: int, shared_input: bool) -> None:
    grouped = grouped_conv(n_towers, 2, 3, kernel=3, stride=2, padding=1, shared_input=shared_input).double()
    separate = SeparateTowers(
        [nn.Conv2d(2, 3, 3, stride=2, padding=1, bias=False).double() for _ in range(n_towers)],
        shared_input=shared_input,
    )
    copy(grouped.weight, separate)
    channels = 2 if shared_input else n_towers * 2
    same(grouped, separate, torch.randn(5, channels, 6, 6, dtype=torch.float64))


def copy(weight: torch.Tensor, separate: SeparateTowers) -> None:
    with torch.no_grad():
        for tower, part in zip(separate.towers, weight.chunk(len(separate.towers)), strict=True):
            tower.weight.copy_(part)  # type: ignore[operator,union-attr]


def same(grouped: nn.Module, separate: SeparateTowers, x: torch.Tensor) -> None:
    """Outputs and gradients agree."""
    y, z = grouped(x), separate(x)
    torch.testing.assert_close(z, y)
    y.square().sum().backward()
    z.square().sum().backward()
    (weight,) = grouped.parameters()
    gradients = [p.grad for p in separate.parameters() if p.grad is not None]
    torch.testing.assert_close(torch.cat(gradients), weight.grad)

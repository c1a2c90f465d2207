"""Multi-task attention: the grouped network is the plain one."""

import pytest
import torch
from torch import nn

from mtl.errors import UserError
from mtl.sharing.mtan.network import AttentionNetwork
from tests.sharing.loops import TASKS as ALL_TASKS
from tests.sharing.small import Slices, inputs, network, plain_heads, plain_tower
from tests.support.reference_networks import Attention, mtan

TASKS = ("a", "b", "c")
SITES = {"vectors": ("fc1", "fc2"), "images": ("pool1", "conv2", "fc3")}
BLOCKS = {
    "vectors": {"fc1": ("fc1",), "fc2": ("fc2",)},
    "images": {"pool1": ("conv1", "pool1"), "conv2": ("conv2",), "fc3": ("fc3",)},
}


def plain_map(n_in: int, n_out: int, images: bool, grouped: list[nn.Module], k: int, n: int) -> nn.Module:
    """W_g of [p ; f] or W_h of task k of n, from one grouped map, or from two whose inputs are joined."""
    plain: nn.Module = nn.Conv2d(n_in, n_out, 1, bias=False) if images else nn.Linear(n_in, n_out, bias=False)
    weights = [next(module.parameters()).unflatten(0, (n, -1))[k] for module in grouped]
    with torch.no_grad():
        plain.double().weight.copy_(torch.cat(weights, dim=1))  # type: ignore[union-attr, arg-type]
    return plain


@pytest.mark.parametrize(("norm", "training"), [("none", True), ("batch", False)])
@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("body", ["vectors", "images"])
def test_it_is_the_plain_loop_over_tasks(body: str, n: int, norm: str, training: bool) -> None:
    """All tasks go through the same extractors. With batch norm in evaluation only, where it reads row by row."""
    tasks = ALL_TASKS[:n]
    model = network(body, tasks, {"kind": "mtan", "after": SITES[body]}, norm=norm).train(training)
    trunk, slices, x = model.trunk, Slices(), inputs(body)
    assert isinstance(trunk, AttentionNetwork)
    blocks = [plain_tower(slices, body, trunk.shared, 0, norm, own).eval() for own in BLOCKS[body].values()]
    extractors = [
        plain_tower(slices, body, trunk.extractors[site], 0, norm, BLOCKS[body][site]).eval()  # type: ignore[arg-type]
        for site in SITES[body][1:]
    ]
    attentions: list[list[Attention]] = []
    maps: list[tuple[nn.Module, list[nn.Module], int]] = []
    for k in range(n):
        own: list[Attention] = []
        for number, site in enumerate(SITES[body]):
            unit = trunk.attention[site]
            images = len(trunk.shared.shapes[site]) == 3
            width = trunk.shared.shapes[site][0]
            grouped = [unit.of_trunk] + ([unit.of_tower] if number else [])
            g = plain_map(width * len(grouped), width, images, grouped, k, n)  # type: ignore[arg-type]
            h = plain_map(width, width, images, [unit.mask], k, n)  # type: ignore[list-item]
            maps += [(g, grouped, k), (h, [unit.mask], k)]  # type: ignore[list-item]
            norms: list[nn.Module] = []
            for whole in (unit.norm_inner, unit.norm_outer):
                kind = nn.BatchNorm2d if images else nn.BatchNorm1d
                plain = kind(width).double() if norm == "batch" else nn.Identity()
                norms.append(slices.take(plain, list(whole.parameters()), k, n).eval())  # type: ignore[arg-type]
            extractor = extractors[number - 1] if number else None
            own.append(Attention(extractor, g, norms[0], h, norms[1]))
        attentions.append(own)
    expected = mtan(x, blocks, attentions, plain_heads(slices, model, tasks))
    logits = model(x)
    for task, value in zip(tasks, expected, strict=True):
        torch.testing.assert_close(logits[task], value, rtol=1e-5, atol=1e-5)
    sum((t + 1) * logits[task].square().sum() for t, task in enumerate(tasks)).backward()
    sum((t + 1) * value.square().sum() for t, value in enumerate(expected)).backward()
    assert slices.gradients_differ() < 1e-5
    for plain, grouped, k in maps:
        gradients = [next(m.parameters()).grad.unflatten(0, (n, -1))[k] for m in grouped]  # type: ignore[union-attr]
        torch.testing.assert_close(plain.weight.grad, torch.cat(gradients, 1), rtol=1e-5, atol=1e-5)  # type: ignore[union-attr, arg-type]


def test_one_extractor_serves_all_towers() -> None:
    """f_j has the layers of block j once, whatever the number of towers, and every task reaches it."""
    for n in (1, 2, 5):
        model = network("images", ALL_TASKS[:n], {"kind": "mtan", "after": SITES["images"]})
        sizes = {name: p.shape for name, p in model.trunk.named_parameters() if name.startswith("extractors")}
        assert sizes == {
            "extractors.conv2.stages.conv2.map.weight": (4, 3, 3, 3),
            "extractors.fc3.stages.fc3.map.weight": (6, 64),
        }
        assert all(model.reach(ALL_TASKS[:n])[f"trunk.{name}"].all() for name in sizes)


def test_the_heads_read_what_is_attended_to_last() -> None:
    with pytest.raises(
        UserError, match=r"the heads read stage 'fc2', after which no tower attends"
    ) as caught:
        network("vectors", TASKS, {"kind": "mtan", "after": ("fc1",)})
    assert caught.value.path == ("model", "sharing", "after")


def test_a_site_that_is_given_twice_or_is_no_stage_is_refused() -> None:
    with pytest.raises(UserError, match="site 'fc1' is given twice"):
        network("vectors", TASKS, {"kind": "mtan", "after": ("fc1", "fc1", "fc2")})
    with pytest.raises(UserError, match="no stage 'fc3'"):
        network("vectors", TASKS, {"kind": "mtan", "after": ("fc3",)})


def test_mean_masks_are_read_and_belong_to_their_towers() -> None:
    model = network("images", TASKS, {"kind": "mtan", "after": SITES["images"]}).train()
    model(inputs("images"))
    matrices = model.sharing()
    assert tuple(matrices) == SITES["images"]
    for matrix in matrices.values():
        assert (matrix.targets, matrix.sources) == (TASKS, ("shared",))
        assert matrix.values.shape == (3, 1)
        assert ((matrix.values > 0) & (matrix.values < 1)).all()
    reach = model.reach(TASKS)
    for name, served in reach.items():
        own = (".fc3." in name and "attention" in name) or name.startswith("task_modules")
        assert (served.sum(-1) == 1).all() if own else served.all(), name


def test_the_trunk_starts_as_that_of_hard_sharing() -> None:
    """Initial weights depend on names alone, so that a comparison with one shared tower is paired."""
    from mtl.build import build
    from mtl.data.types import Header
    from mtl.recipe.load import load_recipe

    def start(*overrides: str) -> dict[str, torch.Tensor]:
        recipe = load_recipe("synthetic_stitch", overrides)
        return build(recipe, Header((32,), {f"task{t}": ("0", "1") for t in range(3)})).model.state_dict()

    attending = start("model.sharing={kind: mtan, after: [fc1, fc2]}")
    hard = start("model.sharing={kind: none}", "model.towers=one")
    for stage in ("fc1", "fc2"):
        name = f"stages.{stage}.map.weight"
        assert torch.equal(attending[f"trunk.shared.{name}"], hard[f"trunk.towers.{name}"])

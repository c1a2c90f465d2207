"""Links of whole networks: closed forms, plain loops, and planted structure; then the document and its words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mtl.build import Built, build
from mtl.dataset.assemble import Dataset, load_dataset
from mtl.errors import UserError
from mtl.evaluation.evaluate import evaluate, evaluation_mode
from mtl.evaluation.links.document import KEYS, document
from mtl.evaluation.links.losses import row_losses
from mtl.evaluation.links.measure import Measured, measure
from mtl.experiment.trial import build_and_try
from mtl.model.tasks.module import TaskModule
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe
from tests.support.recipes import classes, linear, small, stitched

Made = tuple[Recipe, Built, Dataset]


def made(n_tasks: int = 3, **changes: Any) -> Made:
    """A network of classes on generated rows with its initial weights; 30 of 120 rows are validation."""
    names = "abcdef"[:n_tasks]
    plain = {
        "data": {
            "source": {
                "kind": "synthetic",
                "tasks": n_tasks,
                "rows": 120,
                "test_rows": 10,
                "features": 8,
                "latent": 4,
            },
            "split": {"validation": 0.25},
        },
        "tasks": classes(names),
        "model__backbone__stages": linear(4, 3),
        "model__sharing": stitched("fc1", "fc2"),
    }
    recipe = load_recipe(small(**{**plain, **changes}))
    _, header = build_and_try(recipe)
    dataset = load_dataset(recipe, header)
    return recipe, build(recipe, dataset.header, dataset.learned), dataset


def alphas(built: Built, *values: Any) -> None:
    """Set the alpha of each site in turn."""
    stitches = built.model.trunk.get_submodule("stitches")
    with torch.no_grad():
        for unit, value in zip(stitches.children(), values, strict=True):
            own = unit.get_parameter("alpha")
            own.copy_(torch.as_tensor(value, dtype=own.dtype).broadcast_to(own.shape))


def found_in(one: Made, **options: Any) -> tuple[Measured, dict[str, Any]]:
    recipe, built, dataset = one
    found = measure(built.model, recipe, dataset, **options)
    return found, document(built.model, recipe, found, 7)


def link(found: Mapping[str, Any], site: str, target: str, source: str) -> dict[str, Any]:
    (one,) = [
        own for own in found["links"] if (own["site"], own["target"], own["source"]) == (site, target, source)
    ]
    return dict(one)


# -- the passes ----------------------------------------------------------------------------------------------


def test_the_whole_pass_is_an_evaluation() -> None:
    recipe, built, dataset = made(data__source__labelled={"task1": 0.5}, tasks__b__missing="mask")
    found, said = found_in((recipe, built, dataset))
    values = evaluate(built.model, recipe.tasks, dataset, dataset.splits["validation"], "validation")
    for task in "abc":
        assert said["tasks"][task]["loss"] == pytest.approx(values[f"validation/{task}/loss"], rel=1e-6)
        assert said["tasks"][task]["value"] == values[f"validation/{task}/accuracy"]
    assert found.whole.metrics == values
    assert (found.whole.weight["b"] == 0).any()


def test_identity_keeps_everything_and_no_cut_changes_anything() -> None:
    one = made()
    alphas(one[1], torch.eye(3), torch.eye(3))
    found, said = found_in(one)
    for site in found.sites.values():
        assert np.array_equal(site.shares, np.eye(3))
    changes = [change for own in said["links"] for change in own["changes"].values()]
    assert len(changes) == 2 * 6
    assert {(change["delta"], change["se"], change["verdict"]) for change in changes} == {
        (0.0, 0.0, "not used")
    }
    assert said["proposal"]["towers"] is None
    text = " ".join(said["words"])
    assert "12 links are not used by the result, whatever their alphas" in text
    assert "No grouping is suggested" in text


def test_a_cut_at_the_last_site_in_closed_form() -> None:
    """Two linear towers that are mixed before linear heads: the logits lose alpha_01 times those of tower b's part."""
    one = _, built, dataset = made(2, model__sharing=stitched("fc2"))
    alphas(built, [[0.6, 0.4], [0.0, 1.0]])
    _, said = found_in(one)
    rows = dataset.rows.batch(dataset.splits["validation"])
    ((group, module),) = built.model.modules_of_tasks().items()
    with torch.no_grad(), evaluation_mode(built.model):
        towers = built.model.trunk.get_submodule("towers")
        x_BKC = towers(built.model.inputs(rows.inputs)).unflatten(1, (2, 3))
        weight, bias = (own.unflatten(0, (2, -1))[0] for own in module.head.linear.parameters())
        target = rows.target[group][:, 0]
        before, after = (
            nn.functional.cross_entropy(mixed @ weight.T + bias, target, reduction="none").double()
            for mixed in (0.6 * x_BKC[:, 0] + 0.4 * x_BKC[:, 1], 0.6 * x_BKC[:, 0])
        )
    change = link(said, "fc2", "a", "b")["changes"]["a"]
    difference = after - before
    assert change["delta"] == pytest.approx(difference.mean().item(), abs=1e-6)
    assert change["se"] == pytest.approx(difference.std().item() / len(difference) ** 0.5, rel=1e-4)
    assert change["loss"] == pytest.approx(after.mean().item(), rel=1e-5)
    assert link(said, "fc2", "b", "a")["changes"]["b"]["delta"] == 0.0
    assert link(said, "fc2", "b", "a")["share"] == 0.0
    rms = x_BKC.square().mean((0, 2)).sqrt()
    share = (0.4 * rms[1] / (0.6 * rms[0] + 0.4 * rms[1])).item()
    assert link(said, "fc2", "a", "b")["share"] == pytest.approx(share, rel=1e-5)
    assert said["transfer"]["delta"][0] == [None, change["delta"]]


@pytest.mark.parametrize("granularity", ["scalar", "channel", "dense"])
def test_every_cut_is_the_network_with_alpha_set_to_zero(granularity: str) -> None:
    """Each link, and all links between two towers at once; towers hold one or two tasks."""
    towers = {"left": ["a", "c"], "mid": ["b"], "right": ["d"]}
    one = recipe, built, dataset = made(
        4,
        model__towers=towers,
        model__sharing=stitched("fc1", "fc2", granularity=granularity, init={"convex": 0.6}),
    )
    _, said = found_in(one)
    names, rows = list(towers), dataset.splits["validation"]

    def without(sites: tuple[str, ...], i: int, j: int) -> dict[str, float | None]:
        kept = {name: value.clone() for name, value in built.model.state_dict().items()}
        with torch.no_grad():
            for site in sites:
                alpha = built.model.trunk.get_parameter(f"stitches.{site}.alpha")
                n = alpha.shape[0] // 3
                if granularity == "dense":
                    alpha[i * n : (i + 1) * n, j * n : (j + 1) * n] = 0
                else:
                    alpha[..., i, j] = 0
        values = evaluate(built.model, recipe.tasks, dataset, rows, "validation")
        built.model.load_state_dict(kept)
        return values

    for i, target in enumerate(names):
        for j, source in enumerate(names):
            if i == j:
                continue
            for site in ("fc1", "fc2"):
                values = without((site,), i, j)
                changes = link(said, site, target, source)["changes"]
                assert set(changes) >= set(towers[target])
                for task, change in changes.items():
                    assert change["loss"] == pytest.approx(values[f"validation/{task}/loss"], rel=1e-5)
                    assert change["value"] == pytest.approx(values[f"validation/{task}/accuracy"])
            values = without(("fc1", "fc2"), i, j)
            for task in towers[target]:
                delta = said["transfer"]["delta"]["abcd".index(task)][j]
                lost = values[f"validation/{task}/loss"]
                assert lost is not None
                assert delta == pytest.approx(lost - said["tasks"][task]["loss"], abs=1e-6)
    assert said["transfer"]["delta"][0][0] is said["transfer"]["delta"][2][0] is None


def test_of_many_links_the_strongest_are_cut() -> None:
    one = made()
    alphas(one[1], [[1, 0.5, 0.1], [0.4, 1, 0.1], [0.1, 0.1, 1]], torch.eye(3))
    said: list[str] = []
    _, found = found_in(one, most_cuts=2, told=said.append)
    cut = [own for own in found["links"] if own["changes"] is not None]
    first = [own for own in found["links"] if own["site"] == "fc1"]
    assert [own["changes"] is not None for own in first] == [True, True, False, False, False, False]
    assert len(cut) == 2 + 6  # after the last site towers stay apart, so that these cost three passes
    assert found["transfer"] is None
    assert "6 pairs of towers are too many to cut" in found["proposal"]["reason"]
    assert "4 weaker links were not cut." in found["words"]
    assert said == []


def test_many_passes_are_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtl.evaluation.links.measure.MANY_PASSES", 3)
    said: list[str] = []
    found_in(made(), told=said.append)
    assert said == ["15 passes over 30 rows of validation: each cuts some links"]


def test_rows_are_taken_at_equal_distances_and_groups_with_them() -> None:
    one = made()
    n = len(one[2].rows)
    found, said = found_in(one, most_rows=7, groups=np.arange(n) // 2)
    assert (found.n_rows, found.n_split) == (7, 30)
    assert said["units"] == "groups"
    assert said["n_units"] == found.n_units <= 7
    assert said["words"][0].startswith(f"Measured on 7 of 30 rows of validation in {found.n_units} groups")


def test_without_validation_training_rows_are_read_and_it_says_so() -> None:
    one = made(data__split={})
    found, said = found_in(one)
    assert found.split == said["split"] == "train"
    assert "There is no validation split: these are rows that the network was trained on." in said["words"][0]


def test_a_network_that_overflows_is_refused() -> None:
    one = made()
    alphas(one[1], torch.full((3, 3), torch.inf), torch.eye(3))
    with pytest.raises(UserError, match="site fc1: what the towers take there is not finite"):
        found_in(one)


def test_a_module_with_a_loss_of_its_own_gives_it_row_by_row() -> None:
    recipe, built, dataset = made()
    rows = dataset.splits["validation"]
    before = row_losses(built.model, recipe.tasks, dataset, rows, "validation")

    class Own(type(next(iter(built.model.modules_of_tasks().values())))):  # type: ignore[misc]
        def loss(self, *given: Any) -> Any:
            return TaskModule.loss(self, *given)

    for module in built.model.modules_of_tasks().values():
        module.__class__ = Own
    after = row_losses(built.model, recipe.tasks, dataset, rows, "validation")
    for task in "abc":
        assert after.loss[task] == pytest.approx(before.loss[task], rel=1e-6)
        assert after.weight[task].tolist() == before.weight[task].tolist()


# -- gates, and networks without links -----------------------------------------------------------------------


def test_gates_by_a_loop_and_without_an_expert() -> None:
    one = _, built, dataset = made(model__sharing={"kind": "mmoe", "experts": 3})
    nn.init.normal_(built.model.trunk.get_parameter("gates.weight"))
    _, said = found_in(one)
    rows = dataset.rows.batch(dataset.splits["validation"])
    x = built.model.inputs(rows.inputs)
    gates = built.model.trunk.get_submodule("gates")(x).unflatten(1, (3, 3)).softmax(-1).detach().double()
    (site,) = said["sites"]
    assert (site["site"], site["kind"], site["sources"]) == (
        "gates",
        "gate",
        ["expert_1", "expert_2", "expert_3"],
    )
    np.testing.assert_allclose(site["shares"], gates.mean(0), rtol=1e-5)
    np.testing.assert_allclose(site["spread"], gates.std(0, correction=0), rtol=1e-4)
    assert len(said["links"]) == 9
    assert said["transfer"] is None
    assert said["proposal"]["reason"] == "no tower takes anything from another tower directly"
    # expert 2 is the same one as expert 1: whatever the gate says, it gives its weight to the others
    experts = built.model.trunk.get_submodule("experts")
    with torch.no_grad():
        for parameter in experts.parameters():
            parameter.copy_(parameter.unflatten(0, (3, -1))[:1].repeat_interleave(3, 0).flatten(0, 1))
    _, said = found_in(one)
    assert all(abs(c["delta"]) < 1e-6 for own in said["links"] for c in own["changes"].values())


def test_towers_take_nothing_from_the_experts_of_others() -> None:
    """With an own expert and a shared one, a tower has two links; a cut of one gives its weight to the other."""
    found, said = found_in(made(model__sharing={"kind": "ple", "after": ["fc1", "fc2"]}))
    assert said["shared"] == "links"
    for site in ("fc1", "fc2"):
        pairs = {(own["target"], own["source"]) for own in said["links"] if own["site"] == site}
        assert pairs == {(t, source) for t in "abc" for source in (f"{t}_1", "shared_1")}
        shares = found.sites[site].shares
        assert shares.sum(1) == pytest.approx(1)
        assert not shares[:, :3][~np.eye(3, dtype=bool)].any()
    assert said["transfer"] is None
    assert said["proposal"]["reason"] == "no tower takes anything from another tower directly"


def test_experts_that_no_two_towers_share_are_nothing_shared() -> None:
    _, said = found_in(made(model__sharing={"kind": "cgc", "own": 1, "shared": 0}))
    assert (said["shared"], said["words"]) == ("nothing", ["Nothing is shared between the 3 towers."])


def test_a_single_expert_leaves_nothing_to_cut() -> None:
    _, said = found_in(made(model__sharing={"kind": "mmoe", "experts": 1}))
    assert said["words"][1] == (
        "At gates, the mean weight of expert_1 is 1.000 for each target; it is the only source, so that no link can be "
        "cut."
    )


def test_masks_have_no_cut() -> None:
    _, said = found_in(made(model__sharing={"kind": "mtan", "after": ["fc1", "fc2"]}))
    assert said["links"] == []
    assert said["shared"] == "trunk"
    assert [site["kind"] for site in said["sites"]] == ["gate", "gate"]
    assert said["words"][1].startswith("At fc1, the mean weight of shared lies between 0.")


@pytest.mark.parametrize(
    ("changes", "shared", "words"),
    [
        (
            {"model__towers": "one", "model__sharing": {"kind": "none"}},
            "everything",
            "3 tasks in one tower: everything but its heads is shared.",
        ),
        ({"model__sharing": {"kind": "none"}}, "nothing", "Nothing is shared between the 3 towers."),
        (
            {"model__sharing": {"kind": "none"}, "model__towers": {"one": ["a", "c"], "two": ["b"]}},
            "nothing",
            "Nothing is shared between the 2 towers; a, c share tower one.",
        ),
        (
            {"model__sharing": {"kind": "soft"}},
            "penalty",
            "The 3 towers have no activation and no weight in common. Only the penalty that soft adds to the loss can "
            "join them, and no link can be cut.",
        ),
        (
            {"model__sharing": {"kind": "soft", "penalty": 0.0}},
            "nothing",
            "Nothing is shared between the 3 towers.",
        ),
        *(
            (
                {"model__sharing": sharing},
                "trunk",
                "The 3 towers take their features from one trunk, their only source, so that no link can be cut. The "
                "readings are what the run logged.",
            )
            for sharing in ({"kind": "film", "after": ["fc1"]}, {"kind": "lora"}, {"kind": "lora", "rank": 0})
        ),
    ],
)
def test_a_line_for_networks_without_links(changes: dict[str, Any], shared: str, words: str) -> None:
    _, said = found_in(made(**changes))
    assert said["shared"] == shared
    assert said["words"] == [words]
    assert said["links"] == said["sites"] == []


def test_a_scheme_that_lists_no_links_is_said_so_and_its_readings_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mtl.model.trunk import StitchedTowers, Trunk

    monkeypatch.setattr(StitchedTowers, "links", Trunk.links)
    _, said = found_in(made())
    assert said["words"] == [
        "Sharing scheme cross_stitch lists no links, so that nothing can be observed or cut; its readings are what "
        "the run logged."
    ]
    assert said["readings"]["fc1"]["values"][0][0] == pytest.approx(0.9)
    assert set(said) == set(KEYS)


# -- planted structure ---------------------------------------------------------------------------------------


def planted(alpha: torch.Tensor) -> dict[str, Any]:
    """Six tasks with a tower each; the sign of input t mod 2 is the label of task t, and its tower computes it.

    Every head reads the mixture that alpha makes of the towers, and is the surer the more of its own kind there is.
    """
    one = _, built, dataset = made(
        6, model__backbone__stages=linear(2), model__sharing=stitched("fc1"), data__source__rows=800
    )
    alphas(built, alpha)
    towers = built.model.trunk.get_submodule("towers")
    with torch.no_grad():
        weight = next(parameter for parameter in towers.parameters() if parameter.ndim == 2)
        weight.zero_()
        for k in range(6):
            weight[2 * k, k % 2], weight[2 * k + 1, k % 2] = 1.0, -1.0
        for group, module in built.model.modules_of_tasks().items():
            of_heads = module.head.linear.weight.unflatten(0, (6, -1))
            of_heads.zero_()
            of_heads[:, 0] = torch.tensor([4.0, -4.0])
            module.head.linear.bias.zero_()
            labels = (dataset.rows.inputs[:, :2] < 0).long().to(dataset.rows.target[group].dtype)
            for t, task in enumerate(module.tasks):
                dataset.rows.target[group][:, t] = labels[:, "abcdef".index(task) % 2]
    return found_in(one)[1]


def test_planted_clusters_become_groups_and_the_proposal_loads() -> None:
    kinds = torch.arange(6) % 2
    alpha = (kinds[:, None] == kinds).float() / 3
    said = planted(alpha)
    assert said["proposal"]["towers"] == {"group_1": ["a", "c", "e"], "group_2": ["b", "d", "f"]}
    override = said["proposal"]["override"]
    assert override == "model.towers={group_1: [a, c, e], group_2: [b, d, f]}"
    plain = small(tasks=classes("abcdef"), data__source__tasks=6, model__sharing=stitched("fc1"))
    grouped = load_recipe(plain, [override])
    assert dict(grouped.towers) == {"group_1": ("a", "c", "e"), "group_2": ("b", "d", "f")}
    build_and_try(grouped)
    assert said["words"][-1].startswith(
        "A grouping to try: within {a, c, e}, {b, d, f} the towers use each other"
    )


def test_no_structure_gives_no_grouping() -> None:
    assert planted(torch.eye(6))["proposal"]["towers"] is None

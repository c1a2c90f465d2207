"""Every registered member of every family, through the same properties; and the registry itself."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mtl.backbones.layers import STAGES, Layers
from mtl.data.types import Columns, Header
from mtl.errors import UserError
from mtl.evaluation.links.contract import check_links
from mtl.model.trunk import SharingMatrix, Trunk
from mtl.model.weighting import WeightedSum, Weighting
from mtl.recipe.json_schema import recipe_schema
from mtl.recipe.load import load_recipe, to_yaml
from mtl.recipe.specs import FAMILIES, Spec, Tracker
from mtl.registry import Registry
from tests.support import task_samples
from tests.support.optional import needs_timm
from tests.support.plans import plan
from tests.support.recipes import small

FOLDER = Path(__file__).parent / "tables"
REGISTRIES: dict[str, Registry[Any]] = {**FAMILIES, "stage": STAGES}

MEMBERS = [(family, name) for family, registry in REGISTRIES.items() for name in registry.names()]
NEEDS = {("backbone", "timm"): needs_timm}
every_member = pytest.mark.parametrize(
    ("family", "name"), [pytest.param(*member, marks=NEEDS.get(member, ())) for member in MEMBERS]
)

B, K, T = 4, 2, 3
HEADER = Header(input_shape=(1, 8, 8), labels={"label": tuple("abcdefghij")})


@pytest.fixture(autouse=True)
def _beside_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)  # the examples of sources that read a file name it alone


def example(family: str, name: str) -> Any:
    return REGISTRIES[family][name].model_validate({"kind": name, **REGISTRIES[family][name].example})


@every_member
def test_a_member_says_what_it_is_and_where_it_comes_from(family: str, name: str) -> None:
    member = REGISTRIES[family][name]
    assert family == "stage" or "reference" in vars(member), "each member cites its own source"
    assert member.reference == "ours" or re.search(r"\b(19|20)\d\d\b", member.reference)
    doc = vars(member)["__doc__"]
    assert doc
    assert doc.split("\n")[0].strip().endswith((".", ",", ":"))


@every_member
def test_a_member_knows_its_name(family: str, name: str) -> None:
    registry = REGISTRIES[family]
    assert name in registry
    assert registry.name_of(registry[name]) == name
    assert registry[name](**registry[name].example).kind == name


@every_member
def test_a_member_is_frozen_and_refuses_unknown_keys(family: str, name: str) -> None:
    spec = example(family, name)
    with pytest.raises(ValueError, match="frozen"):
        spec.kind = "other"
    with pytest.raises(ValueError, match=re.escape(f"unknown key 'wigth' for {name}")):
        REGISTRIES[family][name](**REGISTRIES[family][name].example, wigth=1)


@every_member
def test_a_member_survives_dump_and_validation(family: str, name: str) -> None:
    spec = example(family, name)
    dumped = spec.model_dump()
    assert dumped["kind"] == name
    assert REGISTRIES[family][name].model_validate(dumped) == spec


# -- building ----------------------------------------------------------------------------------------------


def build_source(spec: Any) -> None:
    header, columns = spec.header(), spec.columns(0)
    assert isinstance(header, Header)
    assert isinstance(columns, Columns)
    assert columns.inputs.shape[1:] == header.input_shape
    assert set(columns.labels) <= set(header.labels)
    assert all(len(column) == len(columns.inputs) for column in columns.labels.values())
    assert {split: len(rows) for split, rows in columns.splits.items()} == dict(header.row_counts)
    assert spec.columns(0).fingerprint == columns.fingerprint
    assert isinstance(type(spec).generated, bool)


def build_task(spec: Any) -> None:
    outputs, target = task_samples.outputs_of(spec), task_samples.encoded(spec)
    n_outputs = spec.n_outputs(outputs)
    module = task_samples.module_of(spec, n_outputs, *[spec.constants(target, outputs)] * T)
    assert all(module.get_buffer(name).tolist() == [value] * T for name, value in spec.fitted.items())
    assert module(torch.randn(B, 1, 5)).shape == (B, T, n_outputs)
    target_BT = torch.from_numpy(np.stack([target] * T, 1))
    present_BT = torch.ones(B, T, dtype=torch.bool)
    present_BT[:, 1] = False
    logits_BTO = torch.randn(B, T, n_outputs, requires_grad=True)
    sum_T, weight_T = module.loss(logits_BTO, target_BT, present_BT.float())
    sum_T.sum().backward()
    assert sum_T.shape == weight_T.shape == (T,)
    assert sum_T[1] == weight_T[1] == 0
    assert module.counted(target_BT, present_BT.float()).tolist() == [B, 0, B]
    assert logits_BTO.grad is not None
    assert logits_BTO.grad[:, 1].eq(0).all()
    assert logits_BTO.grad[:, 0].ne(0).any()
    metric = module.metric(frozenset(spec.known_metrics))
    metric.update(logits_BTO.detach(), target_BT, present_BT)
    values = metric.compute()
    assert set(spec.known_metrics) <= set(values)
    assert all(values[name].shape == (T,) and values[name][1].isnan() for name in spec.known_metrics)
    assert not values[spec.headline][[0, 2]].isnan().any()
    predicted = module.predict(logits_BTO.detach())
    assert all(values.shape[:2] == (B, T) for values in predicted.values())
    decoded = spec.decode({name: values[:, 0].numpy() for name, values in predicted.items()}, outputs)
    assert "" in decoded
    assert all(len(values) == B for values in decoded.values())
    assert isinstance(spec.group(n_outputs)[0], str)


def build_backbone(spec: Any) -> None:
    stages = spec.build(K, HEADER.input_shape)
    assert tuple(name for name, _, _ in stages) == spec.stage_names()
    x = torch.randn(B, *HEADER.input_shape)
    for _, module, shape in stages:
        x = module(x)
        assert x.shape == (B, K * shape[0], *shape[1:])


def build_sharing(spec: Any) -> None:
    """A trunk of two towers with three tasks, on vectors and on images."""
    assert spec.sharing_lr_scale() > 0
    assert spec.keeps_equal_towers_equal(K) in (True, False)
    towers = {"left": ("t1", "t2"), "right": ("t0",)}
    for shape in ((4,), (4, 2, 2)):
        trunk = spec.build(plan(towers, shape=shape, stages=("fc1", "fc2")))
        assert isinstance(trunk, Trunk)
        assert len(trunk.reading_of) == T
        assert trunk(torch.randn(B, *shape)).shape == (B, trunk.n_readings, *trunk.shape)
        shapes = {name: parameter.shape for name, parameter in trunk.named_parameters()}
        assert all(parameter.requires_grad for parameter in trunk.parameters())
        roles, reach = trunk.roles(), trunk.reach()
        assert set(roles) == set(reach) == set(shapes)
        assert set(roles.values()) <= {"weight", "scale", "sharing"}
        for name, served in reach.items():
            assert served.dtype == torch.bool
            assert served.expand(*shapes[name], T).any(-1).all(), "every part serves some task"
        assert trunk.reach_of_copies().shape == (len(trunk.copies), T)
        for found in trunk.readings().values():
            assert isinstance(found, SharingMatrix)
            assert found.values.shape == (len(found.targets), len(found.sources))
        links_are_true(trunk, shape, towers)


def links_are_true(trunk: Trunk, shape: tuple[int, ...], towers: Mapping[str, tuple[str, ...]]) -> None:
    """Each link is observed and cut; a cut changes its target's reading if the target takes anything from the source.

    It changes no other reading where towers stay apart.
    """
    for parameter in trunk.parameters():
        torch.nn.init.normal_(parameter)
    x, names = torch.randn(B, *shape), list(towers)
    with torch.no_grad():
        before = trunk.eval()(x)
        for links in check_links(trunk, towers).values():
            with links.observed() as seen:
                assert torch.equal(trunk(x), before)
            shares = links.shares(seen)
            assert shares.shape == (len(links.targets), len(links.sources))
            for i, j in links.pairs():
                with links.cut([(i, j)]):
                    changed = [
                        not torch.equal(*both)
                        for both in zip(before.unbind(1), trunk(x).unbind(1), strict=True)
                    ]
                assert changed[names.index(links.targets[i])] == bool(shares[i, j] > 0)
                assert not links.apart or sum(changed) <= 1
            assert torch.equal(trunk(x), before)


def build_weighting(spec: Any) -> None:
    """An objective with finite derivatives, or a gradient of the shared slices; an unseen task has no part in it."""
    module = spec.build((1.0, 2.0, 0.5), (False, True, False))
    assert isinstance(module, Weighting)
    assert module.needs == spec.needs
    assert module.task_weights.tolist() == [1.0, 2.0, 0.5]
    seen_N = torch.tensor([True, False, True])
    if spec.needs == "gradients":
        module.prepare(7)
        if spec.stateful:  # its tasks are always there
            seen_N = torch.ones(3, dtype=torch.bool)
        n = int(seen_N.sum())
        jacobian = torch.randn(*([module.batches] if module.batches > 1 else []), n, 7)
        gradient, weights_S = module.combine(jacobian, torch.rand(n), seen_N)
        assert gradient.shape == (7,)
        assert gradient.isfinite().all()
        assert weights_S is None or weights_S.shape == (n,)
        return
    losses_N = torch.rand(3, requires_grad=True)
    total = module(losses_N, seen_N)
    assert total.shape == ()
    total.backward()
    assert losses_N.grad is not None
    assert losses_N.grad.isfinite().all()
    assert losses_N.grad[1] == 0


def build_optimizer(spec: Any) -> None:
    parameter = nn.Parameter(torch.ones(2, 2))
    optimizer = spec.build([{"params": [parameter], "names": ["w"], "decay": True, "lr_scale": 1.0}])
    assert optimizer.param_groups[0]["lr"] == 0.1
    parameter.square().sum().backward()
    optimizer.step()
    assert parameter.max() < 1


def build_schedule(spec: Any) -> None:
    spec.check(10)
    assert all(0 <= spec.factor(step, 10) <= 1 for step in range(10))
    assert max(spec.factor(step, 10) for step in range(10)) == pytest.approx(1)


def build_tracker(spec: Any) -> None:
    """A tracker is opened without its package, and a package that is absent has a command that installs it."""
    assert isinstance(spec.open(), Tracker)
    assert bool(spec.package) == spec.install.startswith("pip install ")


def build_stage(spec: Any) -> None:
    backbone = Layers(stages=(STAGES["linear"](name="other", features=2),))
    module, shape = spec.build(backbone, K, (3, 8, 8), first=False)
    assert module(torch.randn(B, K * 3, 8, 8)).shape == (B, K * shape[0], *shape[1:])


BUILDERS: dict[str, Callable[[Any], None]] = {
    "source": build_source,
    "task": build_task,
    "backbone": build_backbone,
    "sharing": build_sharing,
    "weighting": build_weighting,
    "optimizer": build_optimizer,
    "schedule": build_schedule,
    "tracker": build_tracker,
    "stage": build_stage,
}


@every_member
def test_a_member_does_what_its_family_promises(family: str, name: str) -> None:
    BUILDERS[family](example(family, name))


# -- in a recipe -------------------------------------------------------------------------------------------

PLACES = {
    "source": ("data", "source"),
    "task": ("tasks", "it"),
    "backbone": ("model", "backbone"),
    "sharing": ("model", "sharing"),
    "weighting": ("weighting",),
    "optimizer": ("optimizer",),
    "schedule": ("schedule",),
    "tracker": ("trackers", 0),
    "stage": ("model", "backbone", "stages", 1),
}


def recipe_with(family: str, value: Mapping[str, Any]) -> dict[str, Any]:
    recipe = small(
        data={"source": {"kind": "fashion_mnist", "sample": True}},
        tasks={"it": {"kind": "fashion.garment"}, "other": {"kind": "fashion.audience"}},
        model__backbone__stages=[{"name": n, "kind": "linear", "features": 4} for n in ("fc1", "fc2")],
        model__sharing={"kind": "none"},
        trackers=["tensorboard"],
    )
    at: Any = recipe
    *path, last = PLACES[family]
    for key in path:
        at = at[key]
    at[last] = value
    return recipe


@every_member
def test_a_member_is_written_into_a_recipe_and_read_back(family: str, name: str, tmp_path: Path) -> None:
    recipe = load_recipe(recipe_with(family, {"kind": name, **REGISTRIES[family][name].example}))
    (tmp_path / "toy.yaml").write_text(to_yaml(recipe), encoding="utf-8")
    again = load_recipe(tmp_path / "toy.yaml")
    assert again.sha256() == recipe.sha256()
    assert again.plain() == recipe.plain()


@pytest.mark.parametrize("family", REGISTRIES)
def test_an_unknown_name_is_answered_with_the_nearest_and_all_names(family: str) -> None:
    registry = REGISTRIES[family]
    name = registry.names()[0]
    wrong = name + "z"
    with pytest.raises(UserError) as caught:
        load_recipe(recipe_with(family, {"kind": wrong}))
    path = re.sub(r"\.(\d+)", r"[\1]", ".".join(map(str, PLACES[family]))) + ".kind"
    names = ", ".join(sorted(registry.names()))
    expected = f"recipe: {path}: unknown {family} '{wrong}'; known: {names} (did you mean '{name}'?)"
    assert str(caught.value) == expected


def variants(schema: Any) -> Iterator[dict[str, Any]]:
    """Every schema of a registered kind, wherever it stands."""
    if isinstance(schema, dict):
        for variant in schema.get("oneOf", ()):
            if "const" in variant.get("properties", {}).get("kind", {}):
                yield variant
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            yield from variants(part)


@pytest.fixture(scope="module")
def in_schema() -> list[dict[str, Any]]:
    return list(variants(recipe_schema()))


@every_member
def test_a_member_is_in_the_json_schema(in_schema: list[dict[str, Any]], family: str, name: str) -> None:
    """Members of two families may have one name, but not the same keys too, or one would be tested for the other."""
    member: type[Spec] = REGISTRIES[family][name]
    keys = set(member.model_fields)
    named = [v for v in in_schema if v["properties"]["kind"]["const"] == name]
    variant = next(v for v in named if set(v["properties"]) == keys)
    required = {key for key, field in member.model_fields.items() if field.is_required()}
    assert set(variant["required"]) == {"kind"} | required
    assert variant["additionalProperties"] is False
    assert variant["properties"]["kind"]["description"] == member.reference


# -- the registry ------------------------------------------------------------------------------------------


class Base:
    pass


@pytest.fixture
def registry() -> Registry[Base]:
    return Registry("thing", Base, "mtl.weightings")


def test_names_are_sorted(registry: Registry[Base]) -> None:
    for name in ("b", "c", "a"):
        registry.register(name)(type(name, (Base,), {}))
    assert registry.names() == ("a", "b", "c")


def test_a_name_taken_by_another_class_is_refused_with_both_owners(registry: Registry[Base]) -> None:
    class First(Base):
        pass

    registry.register("it")(First)
    second = type("Second", (Base,), {"__module__": WeightedSum.__module__})
    with pytest.raises(UserError) as caught:
        registry.register("it")(second)
    assert re.fullmatch(
        r".+/mtl/model/weighting\.py: thing 'it' is already registered by .*test_families.*; "
        r"choose another name",
        str(caught.value),
    )
    assert registry["it"] is First


def test_the_same_class_may_be_registered_again(registry: Registry[Base]) -> None:
    def define() -> type[Base]:
        class Same(Base):
            pass

        return registry.register("it")(Same)

    first, second = define(), define()  # as when a notebook's cell runs twice
    assert first is not second
    assert registry["it"] is second
    assert registry.names() == ("it",)


@pytest.mark.parametrize("member", [int, lambda: None, Base()], ids=["class", "function", "object"])
def test_what_does_not_extend_the_base_is_refused(registry: Registry[Base], member: Any) -> None:
    with pytest.raises(UserError, match=r"cannot register .+ as thing 'it': it does not extend Base$"):
        registry.register("it")(member)
    assert registry.names() == ()


def test_an_unknown_name_is_a_key_error_that_teaches(registry: Registry[Base]) -> None:
    registry.register("apple")(type("Apple", (Base,), {}))
    registry.register("pear")(type("Pear", (Base,), {}))
    with pytest.raises(
        KeyError, match=r"unknown thing 'aple'; known: apple, pear \(did you mean 'apple'\?\)"
    ):
        registry["aple"]
    plugin = "; one of your own needs its plug-in: --plugin FILE"
    assert registry.unknown("xyz") == f"unknown thing 'xyz'; known: apple, pear{plugin}"
    assert "xyz" not in registry


def test_a_class_is_known_by_the_nearest_one_it_extends(registry: Registry[Base]) -> None:
    parent = registry.register("parent")(type("Parent", (Base,), {}))
    child = type("Child", (parent,), {})
    assert registry.name_of(child) == "parent"
    assert registry.name_of(registry.register("child")(child)) == "child"
    assert registry.name_of(Base) is None


def test_it_says_where_to_add_a_member(registry: Registry[Base]) -> None:
    expected = "add a file to mtl/weightings/, or register it in a file given by --plugin"
    assert registry.where_to_add() == expected


def test_a_package_that_cannot_be_imported_is_tried_again() -> None:
    broken = Registry("thing", Base, "mtl.no_such_package")
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="no_such_package"):
            broken.names()

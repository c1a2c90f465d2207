"""Weights that a run begins with, taken from other runs: which, what is said, and what is refused."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mtl
from mtl.build import Built
from mtl.errors import UserError
from mtl.experiment.run import prepare
from mtl.experiment.warm_start import take_weights
from mtl.inference.predict import load
from mtl.model.inputs import TableInputs
from mtl.model.towers import Towers
from mtl.model.trunk import StitchedTowers
from mtl.recipe.load import load_recipe
from mtl.registry import load_plugin
from mtl.training.events import Event, Noted, Started
from tests.support.assertions import Capture, called, plugins_undone, refused

ROOT = Path(__file__).parents[2]
STAGES = [{"name": "fc1", "kind": "linear", "features": 5}, {"name": "fc2", "kind": "linear", "features": 4}]


def recipe(tasks: Sequence[str] = "abc", stages: Any = STAGES, **sections: Any) -> dict[str, Any]:
    """Synthetic tasks a, b, c on columns task0, task1, task2; one tower for each."""
    made: dict[str, Any] = {
        "schema_version": 1,
        "name": "small",
        "data": {
            "source": {
                "kind": "synthetic",
                "tasks": 3,
                "rows": 40,
                "test_rows": 10,
                "features": 12,
                "classes": 3,
            }
        },
        "tasks": {name: {"kind": "multiclass", "target": f"task{ord(name) - 97}"} for name in tasks},
        "model": {
            "backbone": {"kind": "layers", "stages": stages},
            "sharing": {"kind": "cross_stitch", "after": ["fc1"]} if len(tasks) > 1 else {"kind": "none"},
        },
        "optimizer": {"kind": "sgd", "lr": 0.1},
        "train": {"epochs": 2, "batch_size": 10, "threads": 1, "device": "cpu"},
    }
    for key, value in sections.items():
        *above, last = key.split("__")
        inner = made
        for name in above:
            inner = inner[name]
        inner[last] = value
    return made


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished runs `abc` of three towers and `a`, `b` of one."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mtl.report.plots.plot_run", lambda *_: [])
        for seed, tasks in enumerate(("abc", "a", "b")):
            mtl.run(recipe(tasks, seed=seed), out=folder / tasks)
    return folder


def fresh(*args: Any, **sections: Any) -> Built:
    return prepare(load_recipe(recipe(*args, seed=9, **sections)))[0].built


def towers_of(built: Built) -> Towers:
    assert isinstance(built.model.trunk, StitchedTowers)
    return built.model.trunk.towers


def alpha_of(built: Built) -> Tensor:
    """That after fc1."""
    return built.model.trunk.get_parameter("stitches.fc1.alpha").detach()


def slices(built: Built, tower: str) -> dict[str, Tensor]:
    """Every weight and statistic of one tower, taken out by hand: the first dimension is towers by units."""
    names = towers_of(built).names
    k, found = names.index(tower), {}
    for name, value in towers_of(built).stages.state_dict().items():
        if value.ndim:
            each = value.shape[0] // len(names)
            found[name] = value[k * each : (k + 1) * each].clone()
    assert len(found) >= 6
    return found


def head_of(built: Built, task: str) -> dict[str, Tensor]:
    ((name, t, n),) = [(g.name, g.tasks.index(task), len(g.tasks)) for g in built.groups if task in g.tasks]
    tensors = built.model.modules_of_tasks()[name].head.state_dict()
    cut = {key: v[t * (v.shape[0] // n) : (t + 1) * (v.shape[0] // n)].clone() for key, v in tensors.items()}
    assert cut
    return cut


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    assert one.keys() == two.keys()
    return all(torch.equal(one[name], two[name]) for name in one)


def test_all_of_one_run(runs: Path) -> None:
    target, source = fresh(), load(runs / "abc").built
    assert not same(slices(target, "a"), slices(source, "a"))
    found = take_weights(target, {"": source})
    for tower in "abc":
        assert same(slices(target, tower), slices(source, tower))
        assert same(head_of(target, tower), head_of(source, tower))
    assert torch.equal(alpha_of(target), alpha_of(source))
    assert found.lines() == [
        *(f"tower '{tower}': stages fc1, fc2" for tower in "abc"), "heads of 'a', 'b', 'c'",
        "what is shared: stitches.fc1.alpha",
    ]  # fmt: skip


def test_one_run_per_tower(runs: Path) -> None:
    """The third begins as the recipe says, and so do the alphas: no run has seen them together."""
    target, as_it_was = fresh(), fresh()
    sources = {name: load(runs / name).built for name in "ab"}
    found = take_weights(target, sources)
    for tower in "ab":
        assert same(slices(target, tower), slices(sources[tower], tower))
        assert same(head_of(target, tower), head_of(sources[tower], tower))
    assert same(slices(target, "c"), slices(as_it_was, "c"))
    assert same(head_of(target, "c"), head_of(as_it_was, "c"))
    assert torch.equal(alpha_of(target), alpha_of(as_it_was))
    assert found.lines()[-1] == "as the recipe begins: c.fc1, c.fc2, head of 'c'".replace("'", "")


def test_a_single_tower_is_taken_whatever_it_is_called(runs: Path) -> None:
    target, source = fresh(), load(runs / "a").built
    found = take_weights(target, {"c": source})
    assert same(slices(target, "c"), slices(source, "a"))
    assert (found.towers, found.heads) == ({"c": ["fc1", "fc2"]}, [])


def test_tasks_in_another_order_and_fewer(runs: Path) -> None:
    target, source = fresh("cb"), load(runs / "abc").built
    found = take_weights(target, {"": source})
    for tower in "cb":
        assert same(slices(target, tower), slices(source, tower))
        assert same(head_of(target, tower), head_of(source, tower))
    assert (found.heads, found.sharing) == (["c", "b"], [])


def test_a_stage_of_another_shape_is_left(runs: Path) -> None:
    stages = [STAGES[0], {"name": "fc2", "kind": "linear", "features": 7}]
    target, as_it_was, source = fresh("abc", stages), fresh("abc", stages), load(runs / "abc").built
    found = take_weights(target, {"": source})
    assert found.towers == {tower: ["fc1"] for tower in "abc"}
    assert found.heads == []
    left = ", ".join([*(f"{t}.fc2" for t in "abc"), *(f"head of {t}" for t in "abc")])
    assert found.lines()[-1] == f"as the recipe begins: {left}"
    assert same(head_of(target, "a"), head_of(as_it_was, "a"))


def test_a_head_of_other_classes_is_left(runs: Path) -> None:
    """As many classes in another order, or of other names, would be taken for one another."""
    target, source = fresh(), load(runs / "abc").built
    before = head_of(target, "a")
    (group,) = target.groups
    object.__setattr__(group, "outputs", (("2", "1", "0"), *group.outputs[1:]))
    found = take_weights(target, {"": source})
    assert found.heads == ["b", "c"]
    assert same(head_of(target, "a"), before)


def test_separate_towers(tmp_path: Path) -> None:
    """A plug-in's own modules, one per tower."""
    text = (ROOT / "examples/plugins/own_towers.py").read_text(encoding="utf-8")
    (tmp_path / "own_towers.py").write_text(text, encoding="utf-8")
    with plugins_undone():
        load_plugin(str(tmp_path / "own_towers.py"))
        from mtl.recipe.specs import BACKBONES

        (kind,) = [name for name in BACKBONES.names() if name not in ("layers", "timm")]
        options: dict[str, Any] = {"model__backbone": {"kind": kind}, "model__sharing": {"kind": "none"}}
        target, source = (
            fresh("ab", **options),
            prepare(load_recipe(recipe("ab", seed=1, **options)))[0].built,
        )
        found = take_weights(target, {"": source})
        ours, theirs = (towers_of(built).stages.state_dict() for built in (target, source))
    assert set(found.towers) == {"a", "b"}
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert sum(
        isinstance(m, nn.Module) and bool(list(m.parameters())) for m in towers_of(target).stages.values()
    )


@pytest.mark.parametrize(
    ("tower", "text"), [("aa", "no tower 'aa' (did you mean 'a'?)"), ("zzz", "no tower 'zzz'")]
)
def test_no_such_tower(tower: str, text: str, runs: Path) -> None:
    with pytest.raises(UserError) as caught:
        take_weights(fresh(), {tower: load(runs / "a").built})
    assert (caught.value.what, caught.value.path) == (text, (tower,))


def test_nothing_matches(runs: Path) -> None:
    stages = [{"name": "other", "kind": "linear", "features": 9}]
    sections = {"model__sharing": {"kind": "none"}}
    target = fresh("abc", stages, **sections)
    before = {name: value.clone() for name, value in target.model.state_dict().items()}
    with pytest.raises(
        UserError, match="no tower, stage or head has the same name and shape; compare them by"
    ):
        take_weights(target, {"": load(runs / "abc").built})
    assert same(before, dict(target.model.state_dict()))


def test_a_run_begins_with_them_and_says_so(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtl.report.plots.plot_run", lambda *_: [])
    said: list[str] = []

    class Listening:
        def on(self, event: Event) -> None:
            if isinstance(event, Noted):
                said.append(event.text)
            elif isinstance(event, Started):
                assert same(slices(event.trainer.built, "b"), slices(load(runs / "abc").built, "b"))

    made = recipe(seed=4, train__init_from=str(runs / "abc"))
    mtl.run(made, out=tmp_path / "run", listeners=(Listening(),))
    assert said[0] == "init_from: tower 'a': stages fc1, fc2"
    assert len(said) == 5
    first = json.loads((tmp_path / "run/sharing.jsonl").read_text().splitlines()[0])["sharing"]["fc1"][
        "values"
    ]
    assert torch.equal(torch.tensor(first), alpha_of(load(runs / "abc").built))


def test_faults_on_the_command_line(runs: Path, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "r.yaml"
    lines = {key: json.dumps(value) for key, value in recipe().items()}
    path.write_text("".join(f"{key}: {value}\n" for key, value in lines.items()), encoding="utf-8")
    for value, expected in {
        str(tmp_path / "nosuch"): "train.init_from: ... nosuch: no checkpoint found",
        f"{{d: {runs / 'abc'}}}": "train.init_from.d: no tower 'd'",
    }.items():
        command = ["run", path, f"train.init_from={value}", "--out", tmp_path / "out"]
        refused(lambda command=command: called(capsys, *command), tmp_path, [expected])  # type: ignore[misc]


def columns_of(folder: Path, cities: Sequence[str], **inputs: Any) -> dict[str, Any]:
    path = folder / f"{'-'.join(cities)}.csv"
    rows = [f"{i / 7:.3f},{i % 5},{cities[i % len(cities)]},{i % 2}" for i in range(40)]
    path.write_text("\n".join(["x,z,city,task0", *rows]) + "\n", encoding="utf-8")
    source = {
        "kind": "table",
        "path": str(path),
        "inputs": {"numeric": ["x", "z"], "categorical": ["city"], **inputs},
    }
    return recipe("a", data={"source": source, "split": {"test": 0.25}}, tasks__a__kind="binary")


@pytest.mark.parametrize("embedding", [None, 2])
def test_a_first_stage_belongs_to_its_columns_and_categories(embedding: int | None, tmp_path: Path) -> None:
    """Columns in another order, or other cities, would give each weight another meaning, though all shapes agree."""
    cities = ("Bern", "Chur", "Zug")
    options = {} if embedding is None else {"embedding": embedding}
    source = prepare(load_recipe({**columns_of(tmp_path, cities, **options), "seed": 3}))[0].built
    same_columns = prepare(load_recipe(columns_of(tmp_path, cities, **options)))[0].built
    assert take_weights(same_columns, {"": source}).towers == {"a": ["fc1", "fc2"]}
    assert same(slices_of(same_columns), slices_of(source))
    if embedding:
        assert torch.equal(weight_of(same_columns), weight_of(source))
    for other in (
        columns_of(tmp_path, cities, numeric=["z", "x"], **options),
        columns_of(tmp_path, ("Bern", "Chur", "Thun"), **options),
    ):
        target = prepare(load_recipe(other))[0].built
        before = None if embedding is None else weight_of(target).clone()
        found = take_weights(target, {"": source})
        assert found.towers == {"a": ["fc2"]}
        assert found.left == ["a.fc1"]
        assert before is None or torch.equal(weight_of(target), before)


def slices_of(built: Built) -> dict[str, Tensor]:
    return dict(next(part for part in built.model.trunk.modules() if isinstance(part, Towers)).state_dict())


def weight_of(built: Built) -> Tensor:
    assert isinstance(built.model.inputs, TableInputs)
    return built.model.inputs.weight.detach()

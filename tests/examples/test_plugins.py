"""The examples of plug-ins: what each computes, and all of them through every command.

Shapes: B batch, K towers, T tasks of a group, O outputs per task.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.regression import TweedieDevianceScore

from mtl import cli
from mtl.build import build
from mtl.data.types import Labels
from mtl.errors import UserError
from mtl.experiment.trial import build_and_try
from mtl.model.tasks.module import TaskModule
from mtl.recipe.load import load_recipe
from mtl.recipe.specs import BACKBONES, FAMILIES, SHARING, SOURCES, TASKS, WEIGHTINGS, TaskSpec
from mtl.registry import load_plugin
from tests.support.assertions import Capture, called, plugins_undone, refused
from tests.support.plans import plan
from tests.support.task_samples import decoded, mean_loss, module_of
from tests.test_families import BUILDERS

FOLDER = Path(__file__).parents[2] / "examples" / "plugins"
FILES = sorted(FOLDER.glob("*.py"))
RECIPE = FOLDER / "waves.yaml"
ADDED = {
    "footwear": ("task", "fashion.footwear"),
    "counts": ("task", "count"),
    "waves": ("source", "waves"),
    "own_towers": ("backbone", "own_towers"),
    "gated_mean": ("sharing", "gated_mean"),
    "random_weights": ("weighting", "random"),
    "points": ("tracker", "points"),
}
WITH = [part for file in FILES for part in ("--plugin", file)]


@pytest.fixture(autouse=True)
def _loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    with plugins_undone():
        for file in FILES:
            load_plugin(str(file))
        yield


def test_every_file_adds_what_it_says() -> None:
    assert {file.stem for file in FILES} == set(ADDED)
    for stem, (family, name) in ADDED.items():
        member = FAMILIES[family][name]
        assert Path(sys.modules[member.__module__].__file__ or "").stem == stem


@pytest.mark.parametrize(
    ("family", "name", "options"),
    [
        ("source", "waves", {"rows": 20}),
        ("backbone", "own_towers", {"hidden": 3}),
        ("sharing", "gated_mean", {"after": ("fc1",)}),
        ("weighting", "random", {}),
        ("tracker", "points", {"prefix": "test/"}),
    ],
)
def test_the_families_promises_are_kept(family: str, name: str, options: dict[str, Any]) -> None:
    BUILDERS[family](FAMILIES[family][name](**options))


@pytest.mark.parametrize("stem", sorted(ADDED))
def test_it_is_listed(stem: str, capsys: Capture) -> None:
    family, name = ADDED[stem]
    done = called(capsys, "ls", family, "--plugin", FOLDER / f"{stem}.py")
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(name)]
    assert FAMILIES[family][name].reference in line


# -- what each computes --------------------------------------------------------------------------------------


def test_footwear() -> None:
    recipe = load_recipe("fashion_stitch", ["tasks.shoe={kind: fashion.footwear}"])
    spec = recipe.tasks["shoe"]
    labels = Labels(np.arange(10), np.ones(10, bool), tuple("abcdefghij"))
    assert spec.encode(labels, ("no", "yes")).tolist() == [0, 0, 0, 0, 0, 1, 0, 1, 0, 1]


def counting(spec: TaskSpec) -> TaskModule:
    """The module of two counts, 1.5 and 4 in the mean."""
    return module_of(spec, 1, {"mean": (1.5,)}, {"mean": (4.0,)})


def test_the_loss_of_a_count() -> None:
    """torch's own Poisson loss of the logarithm of the rate, over the rows that have a label."""
    spec = TASKS["count"](target="n")
    target_BT = torch.tensor([[0.0, 3.0], [2.0, 1.0], [5.0, 0.0]], dtype=torch.float64)
    weight_BT = torch.tensor([[1.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    z_BTO = torch.randn(3, 2, 1, requires_grad=True)
    loss_T = mean_loss(counting(spec), z_BTO, target_BT, weight_BT)
    each_B = nn.PoissonNLLLoss(log_input=True, reduction="none")(
        z_BTO[:, 0, 0] + math.log(1.5), target_BT[:, 0].float()
    )
    assert loss_T[0].item() == pytest.approx(((each_B * weight_BT[:, 0]).sum() / 4).item(), rel=1e-6)
    assert loss_T[1].item() == 0
    loss_T.sum().backward()
    assert z_BTO.grad is not None
    assert z_BTO.grad[:, 1].eq(0).all()
    assert z_BTO.grad[:, 0].ne(0).all()


def test_the_metrics_of_a_count() -> None:
    spec = TASKS["count"](target="n")
    target_BT = torch.tensor([[0, 3], [2, 1], [5, 0], [1, 2]])
    present_BT = torch.tensor([[True, False], [True, False], [False, False], [True, False]])
    z_BTO = torch.randn(4, 2, 1)
    metric = counting(spec).metric(frozenset({"deviance", "mae"}))
    for half in (slice(0, 2), slice(2, 4)):
        metric.update(z_BTO[half], target_BT[half], present_BT[half])
    values = metric.compute()
    rate, y = 1.5 * np.exp(z_BTO[[0, 1, 3], 0, 0].double().numpy()), np.array([0.0, 2.0, 1.0])
    log_ratio = np.where(y > 0, y * np.log(np.where(y > 0, y, 1) / rate), 0)
    assert values["deviance"][0].item() == pytest.approx(np.mean(2 * (log_ratio - y + rate)), rel=1e-5)
    assert values["mae"][0].item() == pytest.approx(np.abs(rate - y).mean(), rel=1e-5)
    assert all(v[1].isnan() for v in values.values())
    alone = TweedieDevianceScore(power=1.0)(torch.tensor(rate), torch.tensor(y))
    assert values["deviance"][0].item() == pytest.approx(alone.item(), rel=1e-5)


def test_what_a_count_predicts() -> None:
    spec = TASKS["count"](target="n")
    module = module_of(spec, 1, {"mean": (1.5,)})
    columns = decoded(spec, module, torch.tensor([[0.0], [math.log(2)]]), ("count",))
    assert columns[""] == pytest.approx([1.5, 3.0])
    assert columns["_p_0"] == pytest.approx([math.exp(-1.5), math.exp(-3.0)])


@pytest.mark.parametrize("wrong", [-1.0, 0.5])
def test_a_label_that_is_no_count(wrong: float) -> None:
    labels = Labels(np.array([1.0, wrong]), np.ones(2, bool))
    with pytest.raises(UserError, match=rf"^row 1: target: {wrong} is no count: counts are 0, 1, 2, \.\.\.$"):
        TASKS["count"](target="n").encode(labels, ("count",))


def test_the_waves() -> None:
    columns = SOURCES["waves"](rows=50, points=400, noise=0.0).columns(3)
    assert [len(columns.splits[split]) for split in ("train", "test")] == [40, 10]
    for x, fast, periods in zip(
        columns.inputs, columns.labels["fast"], columns.labels["periods"], strict=True
    ):
        rises = np.count_nonzero(
            (x[:-1] <= 0) & (x[1:] > 0)
        )  # a wave begins at each zero that it rises through
        assert rises in (periods, periods + 1)
        assert fast == (periods >= 2)
    again = SOURCES["waves"](rows=50, points=400, noise=0.0)
    assert again.columns(3).fingerprint == columns.fingerprint != again.columns(4).fingerprint


def test_own_towers_are_what_their_modules_are_alone() -> None:
    stages = BACKBONES["own_towers"](hidden=3).build(2, (5,))
    x = torch.randn(4, 5)
    h = x
    for _, stage, _ in stages:
        h = stage(h)
    (_, readers, _), (_, layers, _) = stages
    for k, alone in enumerate(torch.stack([h[:, :3], h[:, 3:]])):
        assert torch.equal(alone, layers.towers[k](readers.towers[k](x)))


def test_own_towers_start_by_seed_and_name() -> None:
    def towers(*overrides: str) -> list[nn.Module]:
        recipe = load_recipe(RECIPE, overrides)
        torch.rand(3)  # what was drawn before does not count
        header = recipe.data.only.header()
        return list(build(recipe, header).model.trunk.get_submodule("towers.stages.gru.towers").children())

    both, again = towers(), towers()
    alone = towers("~tasks.speed")
    other = towers("seed=1")
    assert all(torch.equal(a, b) for a, b in zip(both[1].parameters(), alone[0].parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(both[0].parameters(), again[0].parameters(), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(both[0].parameters(), both[1].parameters(), strict=True))
    assert not any(
        torch.equal(a, b) for a, b in zip(both[0].parameters(), other[0].parameters(), strict=True)
    )


@pytest.mark.parametrize("shape", [(3,), (3, 2, 4)])
def test_the_gated_mean(shape: tuple[int, ...]) -> None:
    spec = SHARING["gated_mean"](after=("b",), start=0.3)
    trunk = spec.build(plan({"one": ("x",), "two": ("y",)}, shape=shape))
    unit: Any = trunk.get_submodule("stitches.b")
    x_BKC = torch.randn(5, 2, *shape)
    wanted = 0.7 * x_BKC + 0.3 * x_BKC.mean(1, keepdim=True)
    torch.testing.assert_close(unit(x_BKC.flatten(1, 2)), wanted.flatten(1, 2))
    torch.testing.assert_close(
        torch.einsum("ij,bj...->bi...", unit.sharing_matrix(), x_BKC), wanted, atol=1e-6, rtol=1e-5
    )
    assert unit.sharing_matrix().tolist() == [pytest.approx([0.85, 0.15]), pytest.approx([0.15, 0.85])]
    (links,) = trunk.links().values()
    with links.observed() as seen, torch.no_grad():
        unit(torch.cat([torch.ones(5, shape[0], *shape[1:]), 2 * torch.ones(5, shape[0], *shape[1:])], 1))
    shares = links.shares(seen).tolist()  # |alpha_ij| rms(x_j), although the unit knows nothing of links
    assert shares == [pytest.approx([0.85 / 1.15, 0.3 / 1.15]), pytest.approx([0.15 / 1.85, 1.7 / 1.85])]


def test_random_weights() -> None:
    """Other weights at each step, which add up to the number of tasks that are seen."""
    weighting, losses_N = WEIGHTINGS["random"]().build((1.0, 2.0, 1.0), (False,) * 3), torch.rand(3)
    found = []
    for seen in ([True, True, True], [True, False, True], [False, False, False]):
        seen_N = torch.tensor(seen)
        weights_N, own = weighting.derivatives(losses_N, seen_N)
        assert own == []
        assert (weights_N > 0).tolist() == seen
        assert (weights_N / torch.tensor([1.0, 2.0, 1.0])).sum().item() == pytest.approx(sum(seen))
        assert weighting(losses_N, seen_N).isfinite()
        found.append(weighting.derivatives(losses_N, seen_N)[0])
        assert sum(seen) == 0 or not torch.equal(found[-1], weights_N)


# -- through every command -----------------------------------------------------------------------------------


def ran(capsys: Capture, *arguments: str | Path, plugins: Sequence[str | Path] = WITH) -> str:
    done = called(capsys, *arguments, *plugins)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plugins") / "run"
    arguments = ["run", RECIPE, "--out", out, "--quiet", "data.source.rows=60", "train.epochs=2", *WITH]
    with plugins_undone():
        assert cli.main([str(argument) for argument in arguments]) == 0
    return out


@pytest.fixture
def run_folder(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def results(run: Path) -> dict[str, float]:
    return dict(json.loads((run / "run.json").read_text(encoding="utf-8"))["results"])


def test_validate_and_summary(capsys: Capture) -> None:
    assert ran(capsys, "validate", RECIPE) == f"ok {RECIPE}: 2 tasks, 2 towers, 701 parameters\n"
    text = ran(capsys, "summary", RECIPE)
    assert "gated_mean joins towers speed, periods at gru, fc; it holds 2 parameters" in text
    # a GRU: 3 gates of 8 x (1 + 8) weights and 2 x 8 biases; a linear layer 8 x 8 + 8; two towers
    assert 2 * (3 * (8 * 9 + 16) + 72) + 2 + (2 * 8 + 2) + (8 + 1) == 701


def test_the_run_records_its_plugins(run_folder: Path) -> None:
    record = json.loads((run_folder / "run.json").read_text(encoding="utf-8"))
    assert record["plugins"] == [str(file) for file in FILES]
    assert set(record["plugin_sha256"]) == set(record["plugins"])
    assert record["status"] == "finished"
    assert {"test/speed/accuracy", "test/periods/deviance"} <= set(record["results"])


def interrupted(run: Path, copy: Path) -> Path:
    """The run as it would lie there had it been stopped in its second epoch."""
    shutil.copytree(run, copy)
    last = max((copy / "checkpoints").glob("step-*"))
    shutil.rmtree(last)
    record = json.loads((copy / "run.json").read_text(encoding="utf-8"))
    record["status"] = "interrupted"
    (copy / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return copy


_ALL = "in all 48 training rows that have both"
FOLLOWS = f"warning: task 'speed': its label follows from that of task 'periods' {_ALL}\n"
"""What mtl says of the data of the examples."""


def test_resume_goes_on_to_the_same_numbers(run_folder: Path, tmp_path: Path, capsys: Capture) -> None:
    copy = interrupted(run_folder, tmp_path / "copy")
    before = results(run_folder)
    done = called(capsys, "run", "--resume", copy, "--quiet", *WITH)
    assert (done.returncode, done.stderr) == (0, FOLLOWS)
    assert results(copy) == before
    assert (copy / "sharing.jsonl").read_bytes() == (run_folder / "sharing.jsonl").read_bytes()


def test_resume_without_a_plugin_is_refused_by_name(
    run_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    copy = interrupted(run_folder, tmp_path / "copy")
    missing = FOLDER / "counts.py"
    rest = [part for file in FILES if file != missing for part in ("--plugin", file)]
    expected = f"{copy}: the run began with plug-ins that are not loaded; add --plugin {missing}"
    refused(lambda: called(capsys, "run", "--resume", copy, *rest), tmp_path, [expected])


def test_a_plugin_that_moved_or_changed(run_folder: Path, tmp_path: Path, capsys: Capture) -> None:
    copy = interrupted(run_folder, tmp_path / "copy")
    moved = tmp_path / "moved"
    shutil.copytree(FOLDER, moved)
    with (moved / "waves.py").open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    plugins = [part for file in FILES for part in ("--plugin", moved / file.name)]
    with plugins_undone():
        for registry in FAMILIES.values():
            for name in {name for _, name in ADDED.values()}:
                registry._members.pop(name, None)
        done = called(capsys, "run", "--resume", copy, "--quiet", *plugins)
    assert done.returncode == 0, done.stderr
    assert (
        done.stderr == f"warning: {moved / 'waves.py'}: the plug-in changed since this run began\n{FOLLOWS}"
    )
    assert results(copy) == results(run_folder)


def test_eval_and_predict(run_folder: Path, tmp_path: Path, capsys: Capture) -> None:
    assert "deviance" in ran(capsys, "eval", run_folder)
    columns = SOURCES["waves"](rows=60).columns(0)
    np.savez(tmp_path / "rows.npz", inputs=columns.inputs)
    out = tmp_path / "out.csv"
    ran(capsys, "predict", run_folder, "--input", tmp_path / "rows.npz", "--output", out)
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["speed", "speed_p_slow", "speed_p_fast", "periods", "periods_p_0"]
    assert len(rows) == 60
    test = columns.splits["test"]
    hits = [rows[i]["speed"] == ("slow", "fast")[columns.labels["fast"][i]] for i in test.tolist()]
    assert np.mean(hits) == pytest.approx(results(run_folder)["test/speed/accuracy"])
    errors = [abs(float(rows[i]["periods"]) - columns.labels["periods"][i]) for i in test.tolist()]
    assert np.mean(errors) == pytest.approx(results(run_folder)["test/periods/mae"], rel=1e-5)
    assert all(
        float(row["periods_p_0"]) == pytest.approx(math.exp(-float(row["periods"])), rel=1e-4) for row in rows
    )


def test_a_run_without_its_plugins_names_them(run_folder: Path, capsys: Capture) -> None:
    with plugins_undone():
        for registry in FAMILIES.values():
            for name in {name for _, name in ADDED.values()}:
                registry._members.pop(name, None)
        done = called(capsys, "eval", run_folder)
    assert done.returncode == 2
    assert all("the run began with plug-ins; add --plugin" in line for line in done.stderr.splitlines())
    assert str(FOLDER / "counts.py") in done.stderr


def test_parts_of_plugins_and_of_mtl_mix(tmp_path: Path) -> None:
    """Each of them beside shipped members: a gate between layers, layers of one's own under cross-stitches."""
    plain = {"kind": "layers", "stages": ({"name": "gru", "kind": "linear", "features": 4},)}
    values = load_recipe(RECIPE).plain()
    values["model"]["backbone"], values["model"]["sharing"]["after"] = plain, ("gru",)
    build_and_try(load_recipe(values))
    values = load_recipe(RECIPE).plain()
    values["model"]["sharing"] = {"kind": "cross_stitch", "after": ("gru", "fc")}
    built, _ = build_and_try(load_recipe(values))
    stitches = built.model.trunk.get_submodule("stitches")
    assert [name for name, _ in stitches.named_parameters()] == ["gru.alpha", "fc.alpha"]

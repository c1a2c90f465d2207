"""What goes wrong in plug-ins: one line that names the class and the method, exit code 2, and no run folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.assertions import Capture, called, plugins_undone, refused

RECIPE = """\
schema_version: 1
name: r
data:
  source: {kind: synthetic, tasks: 2, rows: 40, test_rows: 10, features: 16}
tasks:
  a: {kind: multiclass, target: task0}
  b: {kind: multiclass, target: task1}
model:
  backbone: {kind: layers, stages: [{name: fc1, kind: linear, features: 4}]}
  sharing: {kind: none}
weighting: {kind: sum}
optimizer: {kind: sgd, lr: 0.1}
train: {epochs: 1, batch_size: 8}
"""
HEAD = """\
import numpy as np
import torch
from torch import nn

import mtl
from mtl.data.types import Columns, Header
from mtl.model.tasks.kinds import Classes
from mtl.model.layers import GroupedLinear
from mtl.model.links import UnitLinks
from mtl.model.trunk import StitchedTowers

"""
FOLDER = Path(__file__).parents[2] / "examples" / "plugins"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    with plugins_undone():
        yield


def check(code: str, overrides: str, expected: str, tmp_path: Path, capsys: Capture) -> None:
    """`mtl run` with the plug-in is refused in one line that holds `expected`, and nothing is written."""
    (tmp_path / "r.yaml").write_text(RECIPE, encoding="utf-8")
    (tmp_path / "p.py").write_text(HEAD + code, encoding="utf-8")
    arguments = ["run", "r.yaml", *overrides.split("; "), "--plugin", "p.py"]
    refused(lambda: called(capsys, *filter(None, arguments)), tmp_path, [expected])


# -- found while the file is loaded --------------------------------------------------------------------------

TASK = """
@mtl.register_task("mine")
class Mine(mtl.tasks.Multiclass):
    target: str = "task0"
    reference = "ours"
"""


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (
            '@mtl.register_task("mine")\nclass Mine(mtl.TaskSpec):\n    reference = "ours"\n',
            "plugin 'p.py': {tmp}/p.py: task 'mine': Mine has no class variable `known_metrics`",
        ),
        (
            '@mtl.register_source("mine")\nclass Mine(mtl.SourceSpec):\n    reference = "ours"\n\n'
            "    def header(self): ...\n",
            "plugin 'p.py': {tmp}/p.py: source 'mine': Mine has no method `columns`",
        ),
        (
            '@mtl.register_backbone("mine")\nclass Mine(mtl.BackboneSpec):\n    reference = "ours"\n\n'
            "    def stage_names(self): ...\n    def build(self, n_towers): ...\n",
            "backbone 'mine': Mine.build(self, n_towers) cannot be called as build(self, n_towers, input_shape)",
        ),
        (
            '@mtl.register_sharing("mine")\nclass Mine(mtl.SharingSpec):\n    reference = "ours"\n',
            "sharing 'mine': Mine has no method `build`",
        ),
        (
            '@mtl.register_weighting("mine")\nclass Mine(mtl.WeightingSpec):\n    reference = "ours"\n',
            "weighting 'mine': Mine has no method `build`",
        ),
        (
            '@mtl.register_sharing("mine")\nclass Mine(mtl.SharingSpec):\n    def build(self, plan): ...\n',
            "sharing 'mine': Mine has no `reference`: the paper that it comes from, or 'ours'",
        ),
        (
            TASK.replace('"mine"', '"binary"'),
            "{tmp}/p.py: task 'binary' is already registered by ... binary.py; choose another name",
        ),
        (
            '@mtl.register_sharing("mine")\nclass Mine(mtl.SharingSpec):\n    strength = 3\n',
            "plugin 'p.py': raised PydanticUserError: ",
        ),
    ],
    ids=["variable", "method", "signature", "sharing", "weighting", "reference", "taken", "no-annotation"],
)
def test_a_class_that_is_not_whole(code: str, expected: str, tmp_path: Path, capsys: Capture) -> None:
    check(code, "", expected.replace("{tmp}", str(tmp_path)), tmp_path, capsys)


# -- found by building on the meta device --------------------------------------------------------------------

BACKBONE = """
class Part(nn.Module):
    def __init__(self):
        super().__init__()
        self.odd = nn.Parameter(torch.randn(3, 16))

    def forward(self, x):
        return x @ self.odd.sum(0, keepdim=True).T.expand(16, 8)


@mtl.register_backbone("mine")
class Mine(mtl.BackboneSpec):
    reference = "ours"
    case: str = ""

    def stage_names(self):
        return ("fc1",)

    def build(self, n_towers, input_shape, shared_input=True):
        linear = GroupedLinear(n_towers, 16, 4, shared_input=True)
        return {
            "raises": lambda: [][1],
            "module": lambda: linear,
            "pairs": lambda: [("fc1", linear)],
            "no_module": lambda: [("fc1", GroupedLinear, (4,))],
            "shape": lambda: [("fc1", linear, 4)],
            "name": lambda: [("fc2", linear, (4,))],
            "wide": lambda: [("fc1", linear, (5,))],
            "inputs": lambda: [("fc1", GroupedLinear(n_towers, 9, 4, shared_input=True), (4,))],
            "slices": lambda: [("fc1", Part(), (4,))],
            "too_few": lambda: [("fc1", mtl.SeparateTowers([nn.Linear(16, 8)], shared_input=True), (4,))],
            "none": lambda: [("fc1", Nothing(), (4,))],
        }[self.case]()


class Nothing(nn.Module):
    def forward(self, x):
        pass
"""
SHARING = """
class Unit(nn.Module):
    def __init__(self, case, n_towers):
        super().__init__()
        self.case, self.n_towers = case, n_towers
        if case != "summary":
            self.sharing_matrix = lambda: torch.ones(n_towers) if case == "flat" else torch.eye(n_towers)

    def forward(self, x):
        if self.case == "type":
            return x + "1"
        return x[:, :4] if self.case == "half" else x


class Flat(mtl.Trunk):
    def __init__(self, plan):
        super().__init__(tuple(plan.towers), (4,), plan.reading_of())
        self.towers = plan.stages(self.copies)

    def forward(self, x):
        return self.towers(x)

    def readings(self):
        return {"fc1": torch.eye(2)}


class Whole(Flat):
    def forward(self, x):
        return super().forward(x).unflatten(1, (2, 4))


class Described(Whole):
    def __init__(self, plan, case):
        super().__init__(plan)
        self.case = case

    def readings(self):
        return {}

    def roles(self):
        known = super().roles()
        first = next(iter(known))
        if self.case == "no_role":
            del known[first]
        return known | {"other_role": {"gate": "weight"}, "wrong_role": {first: "bias"}}.get(self.case, {})

    def reach(self):
        known = super().reach()
        first = next(iter(known))
        if self.case == "no_reach":
            del known[first]
        return known | ({first: torch.ones(3, 2, dtype=torch.bool)} if self.case == "wrong_reach" else {})

    def penalty(self):
        return torch.ones(2) if self.case == "penalties" else None

    def links(self):
        own, towers = self.towers.stages["fc1"], self.copies
        return {
            "no_links": [],
            "not_links": {"fc1": own},
            "stranger": {"fc1": UnitLinks(nn.Identity(), towers, apart=True)},
            "nobody": {"fc1": UnitLinks(own, ("x", "y"), apart=True)},
        }.get(self.case, {})


DESCRIBED = ("no_role", "other_role", "wrong_role", "no_reach", "wrong_reach", "penalties", "described",
             "no_links", "not_links", "stranger", "nobody")


@mtl.register_sharing("mine")
class Mine(mtl.SharingSpec):
    reference = "ours"
    case: str = ""

    def sites(self):
        return ("fc1",)

    def build(self, plan):
        if self.case == "raises":
            raise KeyError("width")
        if self.case in ("module", "matrix", "trunk"):
            return nn.Identity() if self.case == "module" else {"matrix": Whole, "trunk": Flat}[self.case](plan)
        if self.case in DESCRIBED:
            return Described(plan, self.case)
        readings = {"few": (0,), "order": (1, 0), "hole": (0, 2)}.get(self.case, plan.reading_of())
        units = {("fc2" if self.case == "site" else "fc1"): Unit(self.case, len(plan.towers))}
        trunk = StitchedTowers(plan.stages(tuple(plan.towers)), units, plan.tasks_of_towers(), readings)
        return None if self.case == "nothing" else trunk
"""
NO_BUILD = """
@mtl.register_sharing("mine")
class Mine(mtl.SharingSpec):
    reference = "ours"
    case: str = ""

    def sites(self):
        return ("fc1",)
"""
AS_BACKBONE = "model.backbone={kind: mine}"


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (
            "raises",
            "plugin 'p.py': Mine.build.<lambda> raised IndexError: 'list index out of range' at line 33",
        ),
        ("module", "Mine.build gives an object of type GroupedLinear, not a list of (name, module, shape)"),
        ("pairs", "Mine.build gives a list of other things, not a list of (name, module, shape)"),
        ("no_module", "Mine.build gives an object of type type as stage 'fc1', not a module"),
        ("shape", "Mine.build gives stage 'fc1' the shape 4: one tower's is (F,) or (C, H, W)"),
        ("name", "Mine.build gives stages ('fc2',), stage_names ('fc1',)"),
        ("wide", "shapes do not chain: stage 'fc1' of Mine gives (B, 8), not (B, 10)"),
        ("inputs", "shapes do not chain: stage 'fc1': mat1 and mat2 shapes cannot be multiplied"),
        (
            "slices",
            "Mine.build gives stage 'fc1' a weight 'odd' of shape (3, 16), which is not 2 equal slices, one per "
            "tower: put a module for each tower in SeparateTowers",
        ),
        ("too_few", "Mine.build gives stage 'fc1' 1 module for 2 towers"),
        ("none", "shapes do not chain: stage 'fc1' of Mine gives an object of type NoneType, not (B, 8)"),
    ],
)
def test_a_backbone(case: str, expected: str, tmp_path: Path, capsys: Capture) -> None:
    check(BACKBONE, f"model.backbone={{kind: mine, case: {case}}}", expected, tmp_path, capsys)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("raises", "plugin 'p.py': Mine.build raised KeyError: \"'width'\" at line "),
        ("nothing", "Mine.build gives an object of type NoneType, not a Trunk"),
        ("module", "Mine.build gives an object of type Identity, not a Trunk"),
        ("few", "Mine.build gives a trunk with readings for 1 task, not for 2"),
        ("order", "Mine.build gives a trunk with readings (1, 0), which are not numbered tower by tower"),
        ("hole", "Mine.build gives a trunk with readings (0, 2), which are not numbered tower by tower"),
        ("site", "plugin 'p.py': Mine.build raised ValueError: \"stitches after unknown stages ['fc2..."),
        ("trunk", "shapes do not chain: the trunk of Mine gives (B, 8), not (B, 2, 4)"),
        (
            "matrix",
            "Whole, which Mine.build gives, gives an object of type Tensor at 'fc1', not a SharingMatrix",
        ),
        ("half", "shapes do not chain: the unit after 'fc1' of Mine gives (B, 4), not (B, 8)"),
        ("type", "plugin 'p.py': Unit.forward raised TypeError: "),
        ("summary", "Unit, which Mine.build gives, has no method sharing_matrix"),
        ("no_links", "Described.links gives an object of type list, not a dict of place -> Links"),
        ("not_links", "at 'fc1', not Links"),
        ("stranger", "Described.links watches a module at 'fc1' that the trunk does not hold"),
        ("nobody", "Described.links has a target 'x', which is no tower and no task"),
        ("flat", "StitchedTowers, which Mine.build gives, gives values of shape (2,) at 'fc1', not (2, 2)"),
    ],
)
def test_a_sharing_scheme(case: str, expected: str, tmp_path: Path, capsys: Capture) -> None:
    check(SHARING, f"model.sharing={{kind: mine, case: {case}}}", expected, tmp_path, capsys)


def test_a_sharing_scheme_with_sites_and_nothing_to_put_there(tmp_path: Path, capsys: Capture) -> None:
    expected = "sharing 'mine': Mine has no method `build`"
    check(NO_BUILD, "model.sharing={kind: mine}", expected, tmp_path, capsys)


def test_a_backbone_for_one_input_and_categories_embedded_per_tower(tmp_path: Path, capsys: Capture) -> None:
    table = "a,b,city\n" + "".join(f"{i % 2},{i % 3 % 2},{'xyz'[i % 3]}\n" for i in range(40))
    (tmp_path / "t.csv").write_text(table, encoding="utf-8")
    source = "{kind: table, path: t.csv, inputs: {categorical: [city], embedding: 2}}"
    data = f"data={{source: {source}, split: {{test: 0.25}}}}; tasks.a.target=a; tasks.b.target=b"
    code = BACKBONE.replace(", shared_input=True):", "):")
    expected = (
        "model.backbone: Mine.build has no parameter 'shared_input', which is needed as categories are embedded "
        "for each tower"
    )
    check(code, f"{data}; model.backbone={{kind: mine}}", expected, tmp_path, capsys)


def test_a_parameter_that_is_drawn_as_it_is_made(tmp_path: Path, capsys: Capture) -> None:
    """Two runs start alike although the module draws from torch's own generator."""
    code = BACKBONE.replace('"raises": lambda: [][1]', '"": lambda: [("fc1", Scaled(), (4,))]') + (
        "\n\nclass Scaled(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.scale = nn.Parameter(torch.randn(8))\n\n"
        "    def forward(self, x):\n        return x[:, :8] * self.scale\n"
    )
    (tmp_path / "r.yaml").write_text(RECIPE, encoding="utf-8")
    (tmp_path / "p.py").write_text(HEAD + code, encoding="utf-8")
    for out in ("one", "two"):
        done = called(
            capsys, "run", "r.yaml", AS_BACKBONE, "--plugin", "p.py", "--out", out, "--quiet"
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "one/metrics.jsonl").read_bytes() == (tmp_path / "two/metrics.jsonl").read_bytes()


def test_a_class_without_words_of_its_own_is_listed(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "p.py").write_text(HEAD + TASK, encoding="utf-8")
    done = called(capsys, "ls", "tasks", "--plugin", "p.py")
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("mine ")]
    assert line.split() == ["mine", "Exactly", *line.split()[2:]]


# -- found in the data ---------------------------------------------------------------------------------------

SOURCE = """
@mtl.register_source("mine")
class Mine(mtl.SourceSpec):
    reference = "ours"
    case: str = ""

    def header(self):
        if self.case == "header":
            return {"input_shape": (3,)}
        return Header((3,) if self.case != "no_shape" else 3, {"task0": ("no", "yes"), "task1": ("no", "yes")})

    def columns(self, seed):
        if self.case == "columns":
            return None
        if self.case == "raises":
            open("nosuch.bin")
        label = np.arange(40) % 2
        labels = {"task0": label, "task1": label[:7] if self.case == "short" else label}
        if self.case == "lacks":
            del labels["task1"]
        rows = np.arange(40) + (self.case == "beyond")
        x = np.ones((40, 4 if self.case == "width" else 3), np.float32) * label[:, None]
        return Columns(x, labels, {"train": rows[:30], "test": rows[30:]}, "0" * 64)
"""


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("header", "Mine.header gives an object of type dict, not a Header"),
        ("no_shape", "Mine.header gives input_shape 3: one row's is (F,) or (C, H, W)"),
        ("columns", "Mine.columns gives an object of type NoneType, not Columns"),
        (
            "raises",
            "plugin 'p.py': Mine.columns raised FileNotFoundError: \"[Errno 2] No such file or directory",
        ),
        ("short", "Mine.columns gives 40 rows of inputs but 7 labels 'task1'"),
        ("lacks", "Mine.columns gives no label column 'task1', which its header names"),
        ("beyond", "Mine.columns gives split 'test' a row beyond its 40 rows"),
        ("width", "Mine.columns gives inputs of shape (4,) per row, its header says (3,)"),
    ],
)
def test_a_source(case: str, expected: str, tmp_path: Path, capsys: Capture) -> None:
    check(SOURCE, f"data.source={{kind: mine, case: {case}}}", expected, tmp_path, capsys)


# -- found on the first rows, before anything is written -----------------------------------------------------

KIND = """
class NoMetric:
    pass


class Module(Classes):
    case = ""

    def row_loss(self, logits_BTO, target):
        found = super().row_loss(logits_BTO, target)
        if self.case == "raises":
            raise ValueError("first line\\nsecond")
        wrong = {"mean": found.mean(), "tasks": found.mean(0), "number": 0.5, "detached": found.detach()}
        return wrong.get(self.case, found)

    def loss(self, logits_BTO, target, weight_BT):
        sum_T, weight_T = super().loss(logits_BTO, target, weight_BT)
        wrong = {"sums": sum_T, "scalar": (sum_T.sum(), weight_T), "weight": (sum_T, 8.0)}
        return wrong.get(self.case, (sum_T, weight_T))

    def metric(self, names):
        if self.case == "metric":
            return NoMetric()
        found = super().metric(names)
        compute = found.compute
        if self.case == "name":
            found.compute = lambda: {"accuracy_": compute()["accuracy"]}
        if self.case == "list":
            found.compute = lambda: [0.5]
        if self.case == "five":
            found.compute = lambda: {name: torch.ones(5) for name in compute()}
        return found

    def predict(self, logits_BTO):
        found = super().predict(logits_BTO)
        if self.case == "one_row":
            found = {name: values[:1] for name, values in found.items()}
        return {"tensor": found["p"], "empty": {}, "numbers": {"p": 0.5}}.get(self.case, found)


@mtl.register_task("mine")
class Mine(mtl.tasks.Multiclass):
    reference = "ours"
    case: str = ""

    def outputs(self, header):
        return ["no", "yes"] if self.case == "outputs" else super().outputs(header)

    def encode(self, labels, outputs):
        found = super().encode(labels, outputs)
        return {"encode": found[:3], "untargeted": None}.get(self.case, found)

    def build(self, head, constants):
        module = head if self.case == "head" else Module(head, constants)
        module.case = self.case
        return module

    def decode(self, predicted, outputs):
        found = super().decode(predicted, outputs)
        return {"decode": {}, "short": {**found, "": found[""][:1]}, "none": None}.get(self.case, found)
"""
WEIGHTING = """
class Each(mtl.Weighting):
    def forward(self, losses_N, seen_N):
        return losses_N


class Plain(nn.Module):
    def forward(self, losses_N, seen_N):
        return losses_N.sum()


class Whole(mtl.Weighting):
    needs = "totals"

    def forward(self, losses_N, seen_N):
        return losses_N.log().sum()


class Logs(mtl.Weighting):
    def forward(self, losses_N, seen_N):
        return losses_N.log().sum()


class Detached(mtl.Weighting):
    def forward(self, losses_N, seen_N):
        return losses_N.detach().sum()


class Number(mtl.Weighting):
    def forward(self, losses_N, seen_N):
        return 1.0


class Typo(mtl.Weighting):
    needs = "gradient"


class Empty(mtl.Weighting):
    pass


class Forgetful(mtl.Weighting):
    def __init__(self, task_weights):
        self.own = task_weights


WEIGHTINGS = {c.__name__.lower(): c for c in (Whole, Logs, Detached, Number, Typo, Empty, Forgetful)}


@mtl.register_weighting("mine")
class Mine(mtl.WeightingSpec):
    reference = "ours"
    case: str = ""

    def build(self, task_weights, is_quantity):
        return Plain() if self.case == "plain" else WEIGHTINGS.get(self.case, Each)(task_weights)
"""


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("outputs", "command line: tasks.a: Mine.outputs gives ['no', 'yes'], not a tuple of names or None"),
        ("encode", "Mine.encode gives an array of shape (3,) for 50 rows"),
        ("untargeted", "Mine.encode gives an object of type NoneType for 50 rows"),
        ("head", "Mine.build gives an object of type GroupedHead, not a TaskModule"),
        ("raises", "plugin 'p.py': Module.row_loss raised ValueError: 'first line\\nsecond' at line "),
        ("mean", "Module.row_loss gives shape (), not (B, T) = (B, 1): one loss per row and task"),
        ("tasks", "Module.row_loss gives shape (1,), not (B, T) = (B, 1): one loss per row and task"),
        (
            "number",
            "Module.row_loss gives an object of type float, not (B, T) = (B, 1): one loss per row and task",
        ),
        ("detached", "Module.loss gives losses without a gradient: compute them from the logits by torch"),
        ("sums", "Module.loss gives an object of type Tensor, not (sums, weights)"),
        ("scalar", "Module.loss gives sums of shape (), not (T,) = (1,): one per task"),
        ("weight", "Module.loss gives weights of an object of type float, not (T,) = (1,): one per task"),
        ("metric", "Module.metric gives an object of type NoMetric, not a Metric"),
        ("name", "Module.metric computes no 'accuracy', which known_metrics names"),
        ("list", "Module.metric computes an object of type list, not a mapping of metric -> (T,)"),
        ("five", "Module.metric computes 'accuracy' with 5 values for 1 task"),
        ("tensor", "Module.predict gives an object of type Tensor, not a dict of tensors"),
        ("empty", "Module.predict gives an empty dict, not a dict of tensors"),
        ("numbers", "Module.predict gives 'p' of shape (), not (B, T, ...) = (B, 1, ...)"),
        ("one_row", "Module.predict gives 'class' of shape (1, 1), not (B, T, ...) = (B, 1, ...)"),
        ("decode", 'Mine.decode gives no column "": the class or value itself'),
        ("none", 'Mine.decode gives no column "": the class or value itself'),
        ("short", "Mine.decode gives column '' not one value for each of 8 rows"),
    ],
)
def test_a_kind_of_task(case: str, expected: str, tmp_path: Path, capsys: Capture) -> None:
    check(KIND, f"tasks.a={{kind: mine, target: task0, case: {case}}}", expected, tmp_path, capsys)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("each", "weighting: Each.forward gives a tensor of shape (2,), not one number: sum over the tasks"),
        (
            "number",
            "weighting: Number.forward gives an object of type float, not one number: sum over the tasks",
        ),
        ("plain", "command line: weighting: Mine.build gives an object of type Plain, not a Weighting"),
        ("whole", "Whole.needs is 'totals', but Mine.needs is 'losses'; set both to the same word"),
        (
            "logs",
            "Logs.forward is not linear in the losses: its derivatives depend on them; set needs to 'totals'",
        ),
        (
            "detached",
            "Detached.forward gives an objective without a gradient: compute it from the losses by torch",
        ),
        ("typo", "Typo.needs is 'gradient'; known: losses, totals, gradients"),
        ("empty", "weighting: Empty needs losses but has no method forward"),
        ("forgetful", "Forgetful.__init__ does not call super().__init__(task_weights)"),
    ],
)
def test_a_weighting(case: str, expected: str, tmp_path: Path, capsys: Capture) -> None:
    check(WEIGHTING, f"weighting={{kind: mine, case: {case}}}", expected, tmp_path, capsys)


COMBINING = """
from typing import ClassVar, Literal

import mtl


class Combines(mtl.Weighting):
    needs = "gradients"

    def __init__(self, task_weights, case):
        super().__init__(task_weights)
        self.case = case

    def combine(self, jacobian_SP, losses_S, seen_N):
        total = jacobian_SP.sum(0)
        return {"tensor": total, "none": None, "short": (total[:3], None), "weights": (total, total)}[self.case]


@mtl.register_weighting("mine")
class Mine(mtl.WeightingSpec):
    reference = "ours"
    needs: ClassVar[Literal["losses", "totals", "gradients"]] = "gradients"
    case: str = ""

    def build(self, task_weights, is_quantity):
        return Combines(task_weights, self.case)
"""


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("tensor", "Combines.combine gives an object of type Tensor, not (gradient, weights or None)"),
        ("none", "Combines.combine gives an object of type NoneType, not (gradient, weights or None)"),
        ("short", "Combines.combine gives a gradient of shape (3,), not of shape ("),
        ("weights", "Combines.combine gives weights of shape ("),
    ],
)
def test_a_weighting_that_combines_gradients(
    case: str, expected: str, tmp_path: Path, capsys: Capture
) -> None:
    check(COMBINING, f"model.towers=one; weighting={{kind: mine, case: {case}}}", expected, tmp_path, capsys)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("no_role", "Described, which Mine.build gives, has a method roles that lacks 'towers."),
        (
            "other_role",
            "Described, which Mine.build gives, has a method roles that names the unknown parameter 'gate'",
        ),
        ("wrong_role", "the role 'bias': weight, scale or sharing"),
        ("no_reach", "Described, which Mine.build gives, has a method reach that lacks 'towers."),
        ("wrong_reach", "a reach of shape (3, 2), which does not broadcast to ("),
        ("penalties", "Described, which Mine.build gives, gives a penalty that is not one number"),
    ],
)
def test_what_a_trunk_says_of_its_parameters(
    case: str, expected: str, tmp_path: Path, capsys: Capture
) -> None:
    check(SHARING, f"model.sharing={{kind: mine, case: {case}}}", expected, tmp_path, capsys)


@pytest.mark.parametrize(
    ("code", "overrides"),
    [
        (BACKBONE.replace('"raises": lambda: [][1]', '"": lambda: [("fc1", linear, (4,))]'), AS_BACKBONE),
        (SHARING, "model.sharing={kind: mine}"),
        (SHARING, "model.sharing={kind: mine, case: described}"),
        (SOURCE, "data.source={kind: mine}"),
        (KIND, "tasks.a={kind: mine, target: task0}"),
        (WEIGHTING.replace("return losses_N", "return losses_N.sum()"), "weighting={kind: mine}"),
    ],
    ids=["backbone", "sharing", "described", "source", "task", "weighting"],
)  # fmt: skip
def test_without_the_mistake_it_runs(code: str, overrides: str, tmp_path: Path, capsys: Capture) -> None:
    """So that each refusal above has its one reason."""
    (tmp_path / "r.yaml").write_text(RECIPE, encoding="utf-8")
    (tmp_path / "p.py").write_text(HEAD + code, encoding="utf-8")
    done = called(capsys, "run", "r.yaml", overrides, "--plugin", "p.py", "--out", "run", "--quiet")
    assert done.returncode == 0, done.stderr


def test_debug_shows_the_traceback(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE, encoding="utf-8")
    (tmp_path / "p.py").write_text(HEAD + KIND, encoding="utf-8")
    task = "tasks.a={kind: mine, target: task0, case: raises}"
    done = called(capsys, "run", "r.yaml", task, "--plugin", "p.py", "--debug")
    assert done.returncode == 2
    assert "Traceback (most recent call last)" in done.stderr
    assert re.search(r'p\.py", line \d+, in row_loss', done.stderr)
    assert done.stderr.splitlines()[-1].startswith(
        "error: plugin 'p.py': Module.row_loss raised ValueError: "
    )


def test_a_fault_of_mtl_is_not_blamed_on_a_plugin(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr("mtl.training.loop.fit", broken)
    monkeypatch.setattr("mtl.experiment.run.fit", broken)
    (tmp_path / "r.yaml").write_text(RECIPE, encoding="utf-8")
    (tmp_path / "p.py").write_text(HEAD + KIND, encoding="utf-8")
    task = "tasks.a={kind: mine, target: task0}"
    done = called(capsys, "run", "r.yaml", task, "--plugin", "p.py", "--quiet", "--out", "run")
    assert done.returncode == 1
    assert "error: a bug in mtl: RuntimeError: 'ours'" in done.stderr


def test_the_lines_of_the_page_are_real(tmp_path: Path, capsys: Capture) -> None:
    """docs/plugins.md shows two errors; they are those of its own plug-ins with one mistake each."""
    page = (FOLDER.parents[1] / "docs" / "plugins.md").read_text(encoding="utf-8")
    shown = re.findall(r"^error: .+$", page, flags=re.MULTILINE)
    counts = (FOLDER / "counts.py").read_text(encoding="utf-8")
    gate = (FOLDER / "gated_mean.py").read_text(encoding="utf-8")
    for name in ("waves.py", "own_towers.py", "random_weights.py", "waves.yaml"):
        (tmp_path / name).write_text((FOLDER / name).read_text(encoding="utf-8"), encoding="utf-8")
    wrong = [
        (counts.replace("self.mean.log()", "self.mean.ln()"), gate),
        (counts, gate.replace("sigmoid()).flatten(1, 2)", "sigmoid())[:, 0]")),
    ]
    assert len(shown) == len(wrong)
    for (own_counts, own_gate), line in zip(wrong, shown, strict=True):
        assert (own_counts, own_gate) != (counts, gate)
        (tmp_path / "counts.py").write_text(own_counts, encoding="utf-8")
        (tmp_path / "gated_mean.py").write_text(own_gate, encoding="utf-8")
        names = ("waves", "counts", "own_towers", "gated_mean", "random_weights")
        plugins = [part for name in names for part in ("--plugin", f"{name}.py")]
        with plugins_undone():
            done = called(capsys, "run", "waves.yaml", *plugins)
        assert done.stderr == line + "\n"

"""A new member of a family is one new file: no list, no test and no page is edited for it.

The files below are put into a copy of the house, the generated pages are made anew as by `make docs`, and the tests
that run over the registries are run there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

NEW = {
    "mtl/sources/dots.py": '''
"""Points on a line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mtl.recipe.specs import SOURCES, SourceSpec

if TYPE_CHECKING:
    from mtl.data.types import Columns, Header


@SOURCES.register("dots")
class Dots(SourceSpec):
    """Points, and whether they are above 0."""

    reference: ClassVar[str] = "ours"
    example: ClassVar[Mapping[str, Any]] = {}
    generated: ClassVar[bool] = True

    def header(self) -> Header:
        from mtl.data.types import Header

        return Header((1,), {"label": ("no", "yes")}, row_counts={"train": 30, "test": 10})

    def columns(self, seed: int) -> Columns:
        from mtl.data.types import Columns

        x = np.linspace(-1, 1, 40, dtype=np.float32)[:, None]
        rows = np.arange(40)
        return Columns(
            x, {"label": (x[:, 0] > 0).astype(np.int64)}, {"train": rows[:30], "test": rows[30:]}, "dots"
        )
''',
    "mtl/backbones/plain.py": '''
"""One linear layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from mtl.recipe.specs import BACKBONES, BackboneSpec, Shape

if TYPE_CHECKING:
    from torch import nn


@BACKBONES.register("plain")
class Plain(BackboneSpec):
    """A single linear layer of three features."""

    reference: ClassVar[str] = "ours"
    example: ClassVar[Mapping[str, Any]] = {}

    def stage_names(self) -> tuple[str, ...]:
        return ("only",)

    def build(
        self, n_towers: int, input_shape: Shape, shared_input: bool = True
    ) -> list[tuple[str, nn.Module, Shape]]:
        from torch import nn

        from mtl.model.layers import GroupedLinear

        layer = GroupedLinear(n_towers, math.prod(input_shape), 3, shared_input=shared_input)
        return [("only", nn.Sequential(nn.Flatten(), layer), (3,))]
''',
    "mtl/sharing/halves.py": '''
"""Towers that meet half way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mtl.recipe.specs import SHARING, SharingSpec

if TYPE_CHECKING:
    from mtl.model.trunk import Plan, Trunk


@SHARING.register("halves")
class Halves(SharingSpec):
    """After each named stage, alpha starts half way between the tower's own activation and the mean."""

    reference: ClassVar[str] = "ours"
    example: ClassVar[Mapping[str, Any]] = {"after": ("fc1",)}

    after: tuple[str, ...] = Field(min_length=1, max_length=200, description="the stages where towers meet")

    def sites(self) -> tuple[str, ...]:
        return self.after

    def build(self, plan: Plan) -> Trunk:
        from mtl.model.stitch import CrossStitch
        from mtl.model.trunk import StitchedTowers

        n, towers = len(plan.towers), plan.stages(tuple(plan.towers))
        start = 0.5 + 0.5 / n
        units = {site: CrossStitch(n, towers.shapes[site], start=start) for site in self.after}
        return StitchedTowers(towers, units, plan.tasks_of_towers(), plan.reading_of())
''',
    "mtl/weightings/doubled.py": '''
"""Twice the sum."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mtl.recipe.specs import WEIGHTINGS, WeightingSpec

if TYPE_CHECKING:
    from mtl.model.weighting import Weighting


@WEIGHTINGS.register("doubled")
class Doubled(WeightingSpec):
    """loss = 2 sum_t weight_t * loss_t."""

    reference: ClassVar[str] = "ours"

    def build(self, task_weights: tuple[float, ...], is_quantity: tuple[bool, ...]) -> Weighting:
        from torch import Tensor

        from mtl.model.weighting import WeightedSum

        class Twice(WeightedSum):
            def forward(self, losses_N: Tensor, seen_N: Tensor) -> Tensor:
                return 2 * super().forward(losses_N, seen_N)

        return Twice(task_weights)
''',
    "mtl/optimizers/rmsprop.py": '''
"""RMSprop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from mtl.recipe.specs import OPTIMIZERS, OptimizerSpec, decayed

if TYPE_CHECKING:
    import torch


@OPTIMIZERS.register("rmsprop")
class RMSprop(OptimizerSpec):
    """The gradient over the root of its running mean square."""

    reference: ClassVar[str] = "Tieleman and Hinton 2012"
    example: ClassVar[Mapping[str, Any]] = {"lr": 0.1}

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        import torch

        return torch.optim.RMSprop(decayed(groups, 0.0), lr=self.lr)
''',
    "mtl/schedules/straight.py": '''
"""A rate that falls on a line."""

from __future__ import annotations

from typing import ClassVar

from mtl.recipe.specs import SCHEDULES
from mtl.schedules.warm_up import WarmedUp


@SCHEDULES.register("straight")
class Straight(WarmedUp):
    """factor = 1 - s / S."""

    reference: ClassVar[str] = "ours"

    def after_warmup(self, step: int, total: int) -> float:
        return 1 - step / total
''',
    "mtl/trackers/silent.py": '''
"""Nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mtl.recipe.specs import TRACKERS, TrackedRun, Tracker, TrackerSpec


class Nothing(Tracker):
    """Takes all, keeps nothing."""

    def begin(self, run: TrackedRun) -> None:
        """Nothing is prepared."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Nothing is kept."""


@TRACKERS.register("silent")
class Silent(TrackerSpec):
    """A tracker that shows nothing."""

    reference: ClassVar[str] = "ours"

    def open(self) -> Tracker:
        return Nothing()
''',
    "tasks/squared.py": '''
"""Classes by the Brier score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from mtl.recipe.specs import TASKS
from mtl.tasks.multiclass import Multiclass

if TYPE_CHECKING:
    from torch import Tensor

    from mtl.model.tasks.heads import GroupedHead
    from mtl.model.tasks.module import TaskModule
    from mtl.recipe.specs import GroupKey


@TASKS.register("squared")
class Squared(Multiclass):
    """loss = sum_c (p_c - y_c)^2, y_c 1 for the true class."""

    reference: ClassVar[str] = "Brier 1950"
    example: ClassVar[Mapping[str, Any]] = {"target": "label"}

    def group(self, n_outputs: int) -> GroupKey:
        return ("squared", n_outputs, self.class_weights is not None)

    def build(self, head: GroupedHead, constants: Mapping[str, Tensor]) -> TaskModule:
        from torch.nn.functional import one_hot

        from mtl.model.tasks.kinds import Classes

        class Module(Classes):
            def row_loss(self, logits_BTO: Tensor, target: Tensor) -> Tensor:
                p = logits_BTO.softmax(-1)
                return (p - one_hot(target.long(), p.shape[-1])).square().sum(-1)

        return Module(head, constants)
''',
}
NAMES = {"source": "dots", "backbone": "plain", "sharing": "halves", "weighting": "doubled"} | {
    "optimizer": "rmsprop",
    "schedule": "straight",
    "task": "squared",
    "tracker": "silent",
}
WHOLE = (
    *("tests/test_families.py", "tests/test_golden.py", "tests/test_imports.py", "tests/test_sizes.py"),
    *("tests/test_registry.py", "tests/recipe/test_json_schema.py", "tests/docs", "tests/tasks/test_page.py"),
    *(
        "tests/tasks/test_groups.py",
        "tests/optimizers",
        "tests/weightings/test_sum.py",
        "tests/commands/test_recipes.py",
    ),
)
"""Tests that run over a registry, or over all files."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the house with the new files in it."""
    copy = tmp_path_factory.mktemp("house")
    for name in ("mtl", "tasks", "recipes", "tests", "docs", "examples"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, copy / name)
    for name, text in NEW.items():
        (copy / name).write_text(text.lstrip(), encoding="utf-8")
    schema = "from mtl.recipe.json_schema import schema_text; print(schema_text(), end='')"
    made = in_house(copy, "-c", schema)
    (copy / "recipes" / "recipe.schema.json").write_text(made.stdout, encoding="utf-8")
    in_house(copy, "-m", "docs.tools.key_table")
    in_house(copy, "-m", "docs.tools.scheme_table")
    in_house(copy, "-m", "docs.tools.weighting_table")
    return copy


def in_house(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


@pytest.mark.parametrize("family", NAMES)
def test_the_command_line_lists_it(family: str, house: Path) -> None:
    assert NAMES[family] in in_house(house, "-m", "mtl", "ls", family).stdout
    assert NAMES[family] not in in_house(ROOT, "-m", "mtl", "ls", family).stdout


def test_every_test_over_the_registries_takes_it_in(house: Path) -> None:
    out = in_house(house, "-m", "pytest", "-v", "-p", "no:cacheprovider", *WHOLE).stdout
    for family, name in NAMES.items():
        assert f"test_a_member_does_what_its_family_promises[{family}-{name}]" in out


@pytest.mark.parametrize(
    "case", ["sharing-halves", "weighting-doubled", "optimizer-rmsprop", "schedule-straight"]
)
def test_it_is_resumed_bit_for_bit(case: str, house: Path) -> None:
    test = f"tests/test_equalities.py::test_stopped_at_every_step[{case}]"
    assert "1 passed" in in_house(house, "-m", "pytest", "-q", "-p", "no:cacheprovider", test).stdout


def test_the_new_task_is_trained_with_the_others(house: Path) -> None:
    test = "tests/test_equalities.py::test_stopped_at_every_step[every-task-kind]"
    assert "1 passed" in in_house(house, "-m", "pytest", "-q", "-p", "no:cacheprovider", test).stdout

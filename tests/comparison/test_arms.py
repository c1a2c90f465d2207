"""Each arm is the compared recipe with a few changes, and nothing else differs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mtl.comparison.arms.arm import Arm, Facts, changed
from mtl.comparison.arms.named import arms_of, default_arms
from mtl.errors import UserError
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe, to_yaml
from mtl.recipe.specs import SHARING
from tests.support.recipes import classes, linear, recipe, stitched


def count(made: Recipe) -> int:
    """One linear stage of 8 inputs per tower: a stand-in for the true number of parameters."""
    widths = made.model.backbone.widths()
    return len(made.towers) * 8 * sum(widths.values())


def facts(made: Recipe, labels: Mapping[str, int] | None = None, is_vector: bool = True) -> Facts:
    return Facts(labels or dict.fromkeys(made.tasks, 100), 100, count, is_vector)


def compared(**changes: Any) -> Recipe:
    given = {
        "tasks": classes("abc"),
        "data__source__tasks": 3,
        "model__sharing": stitched("fc1", lr_scale=3.0),
    }
    return recipe(**(given | changes))


def only(made: Recipe, text: str, **known: Any) -> Arm:
    arms = arms_of(made, [text], facts(made, **known))
    return next(arm for arm in arms if arm.name not in ("single", "single_rows") or arm.name == text)


def difference(made: Recipe, arm: Arm, part: str = "") -> dict[str, Any]:
    """The top-level sections in which the arm's recipe differs."""
    own = changed(made, arm.parts()[part]).plain()
    return {key: value for key, value in own.items() if value != made.plain()[key]}


def test_the_default_arms() -> None:
    made = compared()
    known = facts(made, {"a": 100, "b": 60, "c": 70})
    assert default_arms(made, known) == ["single", "hard", "sharing", "sterile:b"]
    arms = arms_of(made, default_arms(made, known), known)
    assert [(arm.name, arm.role) for arm in arms] == [
        ("single", "single"), ("hard", "candidate"), ("sharing", "candidate"), ("sterile:b", "control"),
    ]  # fmt: skip


def test_single_shares_nothing_and_keeps_the_rest() -> None:
    made = compared(weighting={"kind": "uncertainty"})
    arm = only(made, "single")
    assert difference(made, arm).keys() == {"model", "weighting"}
    own = changed(made, arm.changes)
    assert (own.model.sharing.kind, own.weighting.kind, list(own.towers)) == ("none", "sum", ["a", "b", "c"])


def test_single_is_a_run_for_each_task_where_the_gradient_is_clipped() -> None:
    made = compared(train__clip_norm=1.0)
    arm = only(made, "single")
    assert list(arm.parts()) == ["a", "b", "c"]
    own = changed(made, arm.parts()["b"])
    assert {task: spec.weight for task, spec in own.tasks.items()} == {"a": 0, "b": 1, "c": 0}
    assert own.towers == {
        "b": ("a", "b", "c")
    }  # one tower, whose initial weights are those of tower b elsewhere


def test_a_task_with_few_labels_gets_a_network_on_its_rows() -> None:
    made = compared(tasks=classes("abc", missing="mask"))
    arms = arms_of(made, ["sharing"], facts(made, {"a": 100, "b": 49, "c": 50}))
    assert [arm.name for arm in arms] == ["single", "single_rows", "sharing"]
    assert list(arms[1].parts()) == ["b"]
    assert changed(made, arms[1].parts()["b"]).data.drop_unlabelled is True


def test_early_stopping_of_a_task_alone_looks_at_this_task() -> None:
    made = compared(
        train__clip_norm=1.0, train__early_stopping={"patience": 3}, data__split={"validation": 0.2}
    )
    own = changed(made, only(made, "single").parts()["b"])
    assert own.train.early_stopping is not None
    assert (own.train.early_stopping.metric, own.train.early_stopping.patience) == ("validation/b/loss", 3)


def test_hard_is_one_tower() -> None:
    made = compared()
    own = changed(made, only(made, "hard").changes)
    assert (own.towers, own.model.sharing.kind) == ({"shared": ("a", "b", "c")}, "none")


def test_hard_matched_has_as_many_parameters_as_the_recipe() -> None:
    made = compared(model__backbone__stages=linear(10, 7))
    own = changed(made, only(made, "hard_matched").changes)
    assert own.model.backbone.widths() == {"stages.0.features": 30, "stages.1.features": 21}
    assert count(own) == count(made)


def test_hard_matched_never_exceeds_the_parameters() -> None:
    made = compared(model__backbone__stages=linear(3, 5))

    def squared(of: Recipe) -> int:
        return count(of) ** 2

    known = Facts(dict.fromkeys("abc", 1), 1, squared, True)
    arm = arms_of(made, ["hard_matched"], known)[1]
    assert squared(changed(made, arm.changes)) <= squared(made)


def test_sterile_permutes_the_labels_of_the_others() -> None:
    made = compared()
    arm = only(made, "sterile:b")
    assert list(arm.parts()) == ["b"]
    own = changed(made, arm.parts()["b"])
    assert own.data.permute_labels is not None
    assert own.data.permute_labels.tasks == ("a", "c")
    assert difference(made, arm, "b").keys() == {"data"}


def test_frozen_keeps_what_is_shared_at_its_start() -> None:
    made = compared()
    assert changed(made, only(made, "frozen").changes).model.sharing.sharing_lr_scale() == 0


@pytest.mark.parametrize("kind", SHARING.names())
def test_every_sharing_scheme_is_an_arm(kind: str) -> None:
    made = compared(model__sharing=stitched("fc1", init="identity"))
    if kind in ("none", "cross_stitch"):
        texts = {"none": "is the same network as 'single'", "cross_stitch": None}
        if texts[kind]:
            with pytest.raises(UserError, match=str(texts[kind])):
                arms_of(made, ["single", kind], facts(made))
            return
    own = changed(made, only(made, kind).changes)
    assert own.model.sharing.kind == kind
    assert own.model.sharing.sites() in ((), ("fc1",))


def test_settings_of_the_sharing_and_overrides() -> None:
    made = compared()
    own = changed(made, only(made, "sharing:init=identity+granularity=channel").changes)
    assert (
        own.model.sharing
        == changed(made, ["model.sharing.init=identity", "model.sharing.granularity=channel"]).model.sharing
    )
    own = changed(made, only(made, "weighting=uncertainty").changes)
    assert own.weighting.kind == "uncertainty"
    own = changed(made, only(made, "optimizer.lr=0.5+train.batch_size=7").changes)
    assert (own.optimizer.lr, own.train.batch_size) == (0.5, 7)


def test_a_recipe_in_a_file_is_an_arm(tmp_path: Path) -> None:
    made = compared()
    other = load_recipe(made.plain(), ["model.backbone.stages.0.features=13", "description=a wider tower"])
    path = tmp_path / "wide.yaml"
    path.write_text(to_yaml(other), encoding="utf-8")
    arm = only(made, str(path))
    assert (arm.name, arm.what, arm.recipe) == ("wide", "a wider tower", load_recipe(path))


def test_folders_are_plain_names() -> None:
    made = compared()
    assert only(made, "sharing:init={convex: 0.8}").folder == "sharing-init=-convex--0.8-"


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["shering"], r"no arm 'shering' \(did you mean 'sharing'\?\)"),
        (["sterile:x"], "no task 'x'"),
        (["sharing:after=[fc9]"], "no stage 'fc9'"),
        (["sharing:nothing=1"], "nothing"),
        (["weighting=sam"], "weighting"),
        (["single", "none"], "'none' is the same network as 'single'"),
        (["sharing", "optimizer.lr=0.01"], "'optimizer.lr=0.01' is the same network as 'sharing'"),
        (
            ["sharing:init={convex: 0.8}", "sharing:init=[convex: 0.8]"],
            "would have the same folder|sharing.init",
        ),
    ],
)
def test_an_arm_that_is_none(texts: list[str], said: str) -> None:
    made = compared(optimizer__lr=0.01)
    with pytest.raises(UserError, match=said):
        arms_of(made, texts, facts(made))


def test_arms_that_do_not_fit_the_recipe() -> None:
    images, one = compared(), recipe(tasks=classes("a"))
    with pytest.raises(UserError, match="'trees' reads rows of numbers, not images"):
        arms_of(images, ["trees"], facts(images, is_vector=False))
    with pytest.raises(UserError, match="there is one task"):
        arms_of(one, ["sterile"], facts(one))
    nothing = recipe(tasks=classes("ab"), model__sharing={"kind": "none"})
    with pytest.raises(UserError, match="sharing kind none has no learning rate"):
        arms_of(nothing, ["frozen"], facts(nothing))
    with pytest.raises(
        UserError, match="'sharing' is the same network as 'single'; name what is to be compared"
    ):
        arms_of(nothing, default_arms(nothing, facts(nothing)), facts(nothing))


def test_a_recipe_of_other_data_is_no_arm(tmp_path: Path) -> None:
    made = compared()
    path = tmp_path / "other.yaml"
    path.write_text(to_yaml(changed(made, ["data.source.rows=77"])), encoding="utf-8")
    with pytest.raises(UserError, match="its data or tasks are not those of the compared recipe"):
        arms_of(made, [str(path)], facts(made))

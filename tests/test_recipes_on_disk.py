"""Every recipe under recipes/ loads, builds and takes a step, by being there."""

import math
from pathlib import Path

import pytest
import torch

from mtl.experiment.run import prepare
from mtl.model.stitch import CrossStitch
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import built_in_names, load_recipe, to_yaml
from mtl.recipe.specs import SHARING
from mtl.training.trainer import Trainer
from tests.support.listening import epochs_of

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
every_recipe = pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)

DATA = {
    "fashion_mnist": ["data.source.sample=true", "data.source.rows=300"],
    "overlaid_garments": ["data.source.sample=true", "data.source.rows=100", "data.source.test_rows=50"],
    "face_embeddings": ["data.source.people=8", "data.source.images=10"],
    "synthetic": ["data.source.rows=80", "data.source.test_rows=40", "data.source.labelled=0.5"],
}
STEP = ["~train.epochs", "train.max_steps=1", "train.batch_size=16", "train.device=cpu"]
# 200,884,224 alphas otherwise
THIN = [
    f"model.backbone.stages.{stage}={size}"
    for stage, size in (("0.channels", 1), ("2.channels", 2), ("4.features", 8))
]
SPECIAL = {"fashion_stitch_dense": THIN}


def small(path: Path) -> Recipe:
    """The recipe with a little data, for one step."""
    kind = load_recipe(path).data.source.kind
    return load_recipe(path, [*DATA[kind], *STEP, *SPECIAL.get(path.stem, ())])


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 26
    assert {path.stem for path in RECIPES} == set(built_in_names())


@every_recipe
def test_a_recipe_is_called_like_its_file_and_says_what_it_is(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert recipe.description


SCHEMES = {path.stem.removeprefix("synthetic_") for path in RECIPES} & set(SHARING.names())
"""The sharing schemes that have a recipe of their name."""


def test_there_is_a_recipe_for_each_scheme_of_the_papers() -> None:
    """`synthetic_stitch` has cross_stitch, and `model.sharing.kind=none` is an override away from every recipe."""
    assert {
        "nddr",
        "sluice",
        "ltb",
        "soft",
        "mmoe",
        "dselect_k",
        "cgc",
        "ple",
        "mtan",
        "film",
        "lora",
    } <= SCHEMES


@pytest.mark.parametrize("kind", sorted(SCHEMES))
def test_a_recipe_of_a_scheme_changes_nothing_but_the_sharing(kind: str) -> None:
    """So that their numbers are those of the schemes."""
    own, stitched = load_recipe(f"synthetic_{kind}").plain(), load_recipe("synthetic_stitch").plain()
    assert own["model"].pop("sharing")["kind"] == kind
    stitched["model"].pop("sharing")
    for recipe in (own, stitched):
        del recipe["name"], recipe["description"]
    assert own == stitched


@every_recipe
def test_a_recipe_begins_with_its_schema_and_what_it_is_for(path: Path) -> None:
    first, *rest = path.read_text(encoding="utf-8").splitlines()
    schema = first.removeprefix("# yaml-language-server: $schema=")
    assert schema != first
    assert (path.parent / schema).is_file()
    header = []
    for line in rest:
        if not line.startswith("#"):
            break
        header.append(line.removeprefix("#").strip())
    assert len(" ".join(header).split()) >= 10


@every_recipe
def test_a_recipe_written_out_is_the_same_recipe(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    written = tmp_path / "written.yaml"
    written.write_text(to_yaml(recipe), encoding="utf-8")
    again = load_recipe(written)
    assert again.sha256() == recipe.sha256()
    assert again.plain() == recipe.plain()
    assert to_yaml(again) == to_yaml(recipe)


@every_recipe
def test_a_recipe_takes_a_step(path: Path) -> None:
    trainer, _ = prepare(small(path))
    assert isinstance(trainer, Trainer)
    before = {name: value.detach().clone() for name, value in trainer.built.model.named_parameters()}
    (epoch,) = epochs_of(trainer)
    assert trainer.progress.step == 1
    (train,) = (row for row in epoch.rows if row["split"] == "train")
    for task in trainer.recipe.tasks:
        assert math.isfinite(train[f"train/{task}/loss"])
    for name, parameter in trainer.built.model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert not torch.equal(parameter, before[name]), name


@every_recipe
def test_the_baseline_of_a_recipe_is_an_override_away(path: Path) -> None:
    whole, alone = load_recipe(path), load_recipe(path, ["model.sharing.kind=none"])
    assert alone.model.sharing.model_dump() == {"kind": "none"}
    assert alone.model.backbone == whole.model.backbone
    other = load_recipe(path, ["optimizer.kind=adamw", "optimizer.weight_decay=0.1"]).optimizer
    assert (other.kind, other.lr) == ("adamw", whole.optimizer.lr)


@every_recipe
def test_a_recipe_that_is_made_small_stays_what_it_is(path: Path) -> None:
    whole, changed = load_recipe(path), small(path)
    assert changed.model.sharing == whole.model.sharing
    assert changed.tasks == whole.tasks
    assert changed.optimizer == whole.optimizer


def test_the_dense_recipe_is_dense_when_it_is_small() -> None:
    (path,) = (path for path in RECIPES if path.stem == "fashion_stitch_dense")
    trainer, _ = prepare(small(path))
    sizes = {}
    for site, stitch in trainer.built.model.trunk.stitches.items():
        assert isinstance(stitch, CrossStitch)
        sizes[site] = tuple(stitch.alpha.shape)
    assert sizes == {"pool1": (2 * 196, 2 * 196), "pool2": (2 * 98, 2 * 98), "fc3": (16, 16)}

"""The second experiment: its generated data, a user's own file, its splits and its three recipes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtl.data.types import Array, Columns, Wanted
from mtl.dataset.assemble import Dataset, load_dataset
from mtl.errors import OK
from mtl.experiment.run import prepare
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import built_in_names, load_recipe
from mtl.sources.face_embeddings import FaceEmbeddings
from tests.support.assertions import Capture, called, refused

N, PEOPLE = 40, 10
RECIPES = ("age_gender_independent", "age_gender_stitch", "age_gender_stitch_script")
ROOT = Path(__file__).parents[2]


def unit(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    unit_rows: npt.NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(
        np.float32
    )
    return unit_rows


DRAW = np.random.default_rng(0).standard_normal
EMBEDDING = unit(DRAW((N, 128)))
ARRAYS: dict[str, Array] = {
    "embedding": EMBEDDING,
    "mirrored": unit(EMBEDDING + 0.01 * DRAW((N, 128))),
    "gender": np.array(["f", "m"])[np.arange(N) // 4 % 2],
    "young": np.array(["no", "yes"])[np.arange(N) % 2],
    "person": np.arange(N) // 4,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    return {name: values for name, values in (ARRAYS | changes).items() if values is not None}


def npz(folder: Path, **changes: Any) -> Path:
    np.savez(folder / "faces.npz", **changed(changes))
    return folder / "faces.npz"


def parquet(folder: Path, **changes: Any) -> Path:
    columns = {name: list(values) for name, values in changed(changes).items()}
    pq.write_table(pa.table(columns), folder / "faces.parquet")
    return folder / "faces.parquet"


def csv(folder: Path, **changes: Any) -> Path:
    columns = changed(changes)
    lines = [",".join(columns)]
    for i in range(len(columns["embedding"])):
        cells = [columns[name][i] for name in columns]
        lines.append(",".join(f'"{c.tolist()}"' if np.ndim(c) else str(c) for c in cells))
    (folder / "faces.csv").write_text("\n".join(lines) + "\n")
    return folder / "faces.csv"


FORMS: dict[str, Callable[..., Path]] = {"npz": npz, "parquet": parquet, "csv": csv}
every_form = pytest.mark.parametrize("form", FORMS)


def read(path: Path, *extra: str) -> Columns:
    return FaceEmbeddings(path=str(path)).read(0, Wanted(extra=dict.fromkeys(extra, "codes")))


# --- generated ---


@pytest.fixture(scope="module")
def generated() -> Columns:
    return FaceEmbeddings().columns(0)


def test_generated_faces_are_as_many_as_were_published(generated: Columns) -> None:
    assert generated.inputs.shape == (4000, 128)
    assert generated.inputs.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(generated.inputs, axis=1), 1, atol=1e-6)
    person = generated.extra["person"][:2000]
    assert np.bincount(person).tolist() == [20] * 100
    for column in ("gender", "young"):
        assert np.bincount(generated.labels[column]).tolist() == [2000, 2000]
    genders = [np.unique(generated.labels["gender"][:2000][person == p]).size for p in range(100)]
    assert genders == [1] * 100, "a person has one gender"
    young = [int(generated.labels["young"][:2000][person == p].sum()) for p in range(100)]
    assert young == [10] * 100, "half of each person's images are young"
    assert generated.notices == ()
    assert generated.present == {}


def test_a_mirror_image_is_its_images_neighbour_and_has_its_labels(generated: Columns) -> None:
    assert generated.units is not None
    np.testing.assert_array_equal(generated.units, np.tile(np.arange(2000), 2))
    for values in (*generated.labels.values(), generated.extra["person"]):
        np.testing.assert_array_equal(values[:2000], values[2000:])
    images, mirrored = generated.inputs[:2000], generated.inputs[2000:]
    assert not np.array_equal(images, mirrored)
    nearest = (mirrored[:300] @ images.T).argmax(axis=1)
    assert (nearest == np.arange(300)).mean() > 0.99
    assert generated.place(7) == "generated:row 7"
    assert generated.place(2007) == "generated:row 7 (mirrored)"


def test_generated_labels_can_be_learned_and_not_perfectly(generated: Columns) -> None:
    """Least squares on half of the people, tested on the other half."""
    train = generated.extra["person"] % 4 < 2
    x = np.c_[generated.inputs, np.ones(4000)]
    for column in ("gender", "young"):
        sign = 2.0 * generated.labels[column] - 1
        weights = np.linalg.lstsq(x[train], sign[train], rcond=None)[0]
        accuracy = np.mean((x[~train] @ weights > 0) == (sign[~train] > 0))
        assert 0.6 < accuracy < 0.98


def test_generated_faces_depend_on_the_seed_and_the_settings_alone() -> None:
    few = FaceEmbeddings(people=4, images=2)
    assert few.columns(1).fingerprint == few.columns(1).fingerprint
    assert few.columns(1).fingerprint != few.columns(2).fingerprint
    assert few.columns(1).inputs.shape == (16, 128)


def test_a_run_says_that_its_data_are_generated(folder: Path, capsys: Capture) -> None:
    recipe = str(ROOT / "recipes" / "age_gender_stitch.yaml")
    done = called(capsys, "run", recipe, "train.epochs=1", "--out", "out")
    assert done.returncode == OK, done.stderr
    first, *rest = done.stdout.splitlines()
    assert "(generated vectors unless data.source.path is given)" in first
    assert "the data are generated, not measured" in rest
    assert "3,600 train, 400 test rows" in done.stdout
    record = json.loads((folder / "out" / "run.json").read_text())
    assert record["data"]["generated"] is True
    assert record["data"]["rows"] == {"train": 3600, "test": 400}
    assert "generated" in record["description"]
    assert "generated" in (folder / "out" / "recipe.resolved.yaml").read_text()
    assert {p.name for p in (folder / "out" / "plots").iterdir()} >= {"sharing.png", "curves_accuracy.png"}
    shown = called(capsys, "summary", recipe).stdout
    assert "the data are generated (vectors in the form of face embeddings)" in shown


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipes_text_says_that_its_data_are_generated(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.data.only.generated_now()
    assert "generated" in recipe.data.only.header().note
    base = (ROOT / "recipes" / "age_gender_stitch.yaml").read_text()
    own = (ROOT / "recipes" / f"{name}.yaml").read_text()
    assert "GENERATED by default. They can show that the recipe runs" in " ".join(
        line.strip("# ") for line in base.splitlines()
    )
    assert name == "age_gender_stitch" or "\nbase: age_gender_stitch\n" in own


# --- a file ---


@every_form
def test_a_file_is_read_as_it_is(form: str, folder: Path) -> None:
    path = FORMS[form](folder)
    columns = read(path)
    both = np.concatenate([ARRAYS["embedding"], ARRAYS["mirrored"]])
    np.testing.assert_allclose(columns.inputs, both.astype(np.float32), rtol=1e-6)
    np.testing.assert_array_equal(columns.labels["gender"], np.tile(np.arange(N) // 4 % 2, 2))
    np.testing.assert_array_equal(columns.labels["young"], np.tile(np.arange(N) % 2, 2))
    assert columns.extra_names["person"] == tuple(str(p) for p in range(PEOPLE))
    np.testing.assert_array_equal(columns.extra["person"], np.tile(np.arange(N) // 4, 2))
    header = 1 if form == "csv" else 0
    assert columns.place(N + 3) == f"{path.name}:row {3 + 2 * header} (mirrored)"
    assert columns.notices == ()
    source = FaceEmbeddings(path=str(path))
    assert not source.generated_now()
    assert source.header().note == ""
    assert source.header().columns == ("gender", "young", "person")


@every_form
def test_a_file_needs_neither_mirror_images_nor_people(form: str, folder: Path) -> None:
    columns = read(FORMS[form](folder, mirrored=None, person=None))
    assert columns.inputs.shape == (N, 128)
    assert columns.extra == {}


@pytest.mark.parametrize("values", [
    ["f", "m"], ["F", "M"], ["female", "male"], [" Female ", "MALE"], [0, 1], [0.0, 1.0], [b"f", b"m"], ["0", "1"],
])  # fmt: skip
def test_spellings_of_gender(values: list[object], folder: Path) -> None:
    written = np.array(values)[np.arange(N) // 4 % 2]
    np.testing.assert_array_equal(
        read(npz(folder, gender=written)).labels["gender"][:N], np.arange(N) // 4 % 2
    )


@pytest.mark.parametrize("values", [["no", "yes"], ["N", "Y"], [False, True], [0, 1], ["false", "true"]])
def test_spellings_of_young(values: list[object], folder: Path) -> None:
    for form in (npz, parquet):
        written = np.array(values)[np.arange(N) % 2]
        np.testing.assert_array_equal(read(form(folder, young=written)).labels["young"][:N], np.arange(N) % 2)


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtl.report.plots.plot_run", lambda *_: [])


@pytest.mark.parametrize(
    ("form", "override"),
    [
        ("npz", []),
        ("npz", ["data.split.stratify=gender"]),
        ("parquet", ["data.split.group=person"]),
        ("csv", []),
    ],
)
@pytest.mark.usefixtures("no_plots")
def test_a_run_on_a_file(form: str, override: list[str], folder: Path, capsys: Capture) -> None:
    path = FORMS[form](folder).name
    source = [f"data.source.path={path}", "train.epochs=1", "data.split.test=0.2"]
    done = called(capsys, "run", "age_gender_stitch", *source, *override, "--out", "out", "--quiet")
    assert done.returncode == OK, done.stderr
    assert done.stderr == (
        "warning: split 'test' has 16 rows, so its results are rough: one row is 6.25% of them\n"
    )
    assert "the data are generated" not in done.stdout
    record = json.loads((folder / "out" / "run.json").read_text())
    assert record["data"]["generated"] is False
    assert record["data"]["rows"] == {"train": 64, "test": 16}


@every_form
def test_vectors_of_another_length_are_told(form: str, folder: Path) -> None:
    longer = EMBEDDING * np.where(np.isin(np.arange(N), (5, 9)), 3, 1)[:, None].astype(np.float32)
    row = 7 if form == "csv" else 5
    assert read(FORMS[form](folder, embedding=longer)).notices == (
        f"faces.{form}:row {row}: 'embedding' has length 3, and 1 more rows are not of length 1 either; "
        "face embeddings have length 1: they are taken as they are",
    )


@every_form
@pytest.mark.usefixtures("no_plots")
def test_a_missing_label_is_an_error_or_masked(form: str, folder: Path, capsys: Capture) -> None:
    gaps = np.where(np.arange(N) == 6, "", ARRAYS["gender"])
    if form == "parquet":
        path = parquet(folder, gender=[None if g == "" else g for g in gaps.tolist()])
    else:
        path = FORMS[form](folder, gender=gaps)
    columns = read(path)
    assert np.flatnonzero(~columns.present["gender"]).tolist() == [6, N + 6]
    row = 8 if form == "csv" else 6
    source = f"data.source.path={path.name}"
    run = ("run", "age_gender_stitch", source, "train.epochs=1", "--quiet")
    text = f"tasks.gender.target: {path.name}:row {row}: no label in column 'gender'"
    refused(lambda: called(capsys, *run), folder, [text])
    assert called(capsys, *run, "tasks.gender.missing=mask", "--out", "out").returncode == OK


# --- splits ---


def dataset(*overrides: str) -> Dataset:
    recipe = load_recipe("age_gender_stitch", overrides)
    return load_dataset(recipe, recipe.data.only.header())


SPLITS = {
    "random": (),
    "stratified": ("data.split.stratify=young",),
    "grouped": ("data.split.group=person",),
    "random_with_validation": ("data.split.validation=0.2",),
    "stratified_with_validation": ("data.split.stratify=gender", "data.split.validation=0.2"),
    "grouped_with_validation": ("data.split.group=person", "data.split.validation=0.2"),
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("how", SPLITS)
def test_a_mirror_image_stays_on_its_images_side(how: str, seed: int) -> None:
    found = dataset(*SPLITS[how], f"seed={seed}")
    inputs = found.rows.inputs.numpy()
    image_of = {row.tobytes(): i for i, row in enumerate(inputs[:2000])}
    assert len(image_of) == 2000
    image = np.r_[[image_of[row.tobytes()] for row in inputs[:2000]], np.arange(2000)]
    sides = {name: set(image[rows].tolist()) for name, rows in found.splits.items()}
    names = ["train", "validation", "test"] if "validation" in how else ["train", "test"]
    assert list(sides) == names
    assert sum(len(side) for side in sides.values()) == len(set().union(*sides.values())) == 2000
    for name, rows in found.splits.items():
        assert len(rows) == 2 * len(sides[name]), "both of each pair"
    assert len(found.splits["test"]) == 400
    if how.startswith("stratified"):
        (group,) = found.rows.target
        task = list(load_recipe("age_gender_stitch").tasks).index(SPLITS[how][0].partition("stratify=")[2])
        assert found.rows.target[group][found.splits["test"], task].double().mean() == 0.5


def people_of(found: Dataset, name: str) -> set[int]:
    """By the vectors themselves: image i is of person i // 20, as they are generated in order."""
    return set((found.splits[name] % 2000 // 20).tolist())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_person_is_on_two_sides_of_a_grouped_split(seed: int, generated: Columns) -> None:
    order = [int(name.removeprefix("person ")) for name in generated.extra_names["person"]]
    np.testing.assert_array_equal(
        np.array(order)[generated.extra["person"]], np.tile(np.arange(2000) // 20, 2)
    )
    found = dataset("data.split.group=person", "data.split.validation=0.2", f"seed={seed}")
    train, validation, test = (people_of(found, name) for name in ("train", "validation", "test"))
    assert (len(train), len(validation), len(test)) == (70, 20, 10)
    assert not train & validation
    assert not (train | validation) & test
    random = dataset(f"seed={seed}")
    assert len(people_of(random, "train") & people_of(random, "test")) > 80, "the published split"


@every_form
def test_no_person_of_a_file_is_on_two_sides(form: str, folder: Path) -> None:
    path = FORMS[form](folder)
    found = dataset(f"data.source.path={path}", "data.split.group=person", "data.split.test=0.2")
    person = np.tile(np.arange(N) // 4, 2)
    sides = [set(person[found.splits[name]].tolist()) for name in ("train", "test")]
    assert (len(sides[0]), len(sides[1])) == (8, 2)
    assert not sides[0] & sides[1]


# --- faults ---

NAN_5 = np.where(np.arange(N)[:, None] == 5, np.nan, EMBEDDING)
WOMAN_6 = np.where(np.arange(N) == 6, "woman", ARRAYS["gender"])
ALLOWED = "allowed f, female, 0, m, male, 1"
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "narrow": ({"embedding": EMBEDDING[:, :64]}, "'embedding' has shape (40, 64) of float32, expected (n, 128) num"),
    "text": ({"embedding": EMBEDDING.astype("U5")}, "'embedding' has shape (40, 128) of <U5, expected (n, 128) num"),
    "cube": ({"embedding": EMBEDDING[:, None]}, "'embedding' has shape (40, 1, 128) of float32, expected (n, 128)"),
    "objects": ({"embedding": EMBEDDING.astype(object)}, "array 'embedding' holds Python objects, which are never"),
    "no_rows": ({"embedding": EMBEDDING[:0]}, "no rows"),
    "nan": ({"embedding": NAN_5}, "faces.npz:row 5: 'embedding' holds a value that is not finite"),
    "huge": ({"embedding": EMBEDDING.astype(float) * 1e300}, "faces.npz:row 0: 'embedding' holds a value"),
    "mirrored_nan": ({"mirrored": NAN_5}, "faces.npz:row 5: 'mirrored' holds a value that is not finite"),
    "mirrored_short": ({"mirrored": EMBEDDING[1:]}, "faces.npz: 40 embeddings but 39 mirrored ones"),
    "mirrored_narrow": ({"mirrored": EMBEDDING[:, :3]}, "'mirrored' has shape (40, 3) of float32, expected (n, 128)"),
    "gender_word": ({"gender": WOMAN_6}, f"faces.npz:row 6: gender is 'woman', {ALLOWED}"),
    "gender_number": ({"gender": np.arange(N) % 3}, f"faces.npz:row 2: gender is '2', {ALLOWED}"),
    "gender_escape": ({"gender": np.array(["\x1b[31m"] * N)}, r"faces.npz:row 0: gender is '\x1b[31m', allowed f"),
    "young_word": ({"young": np.array(["old"] * N)}, "row 0: young is 'old', allowed no, n, false, 0, yes, y, true, 1"),
    "gender_short": ({"gender": ARRAYS["gender"][1:]}, "array 'gender' has 39 rows, the inputs have 40"),
    "gender_wide": ({"gender": np.stack([ARRAYS["gender"]] * 2)}, "array 'gender' has shape (2, 40), a column is (n,)"),
    "gender_date": ({"gender": np.zeros(N, "M8[s]")}, f"row 0: gender is '1970-01-01T00:00:00', {ALLOWED}"),
    "person_short": ({"person": np.arange(39)}, "array 'person' has 39 rows, the inputs have 40"),
    "no_embedding": ({"embedding": None}, "no array 'embedding'; arrays: mirrored, gender, young, person"),
    "no_gender": ({"gender": None, "gendre": ARRAYS["gender"]}, "no array 'gender' (did you mean 'gendre'?); arrays: "),
}  # fmt: skip
AT = "age_gender_stitch.yaml:19:11: data.source: ... "


@pytest.mark.parametrize("case", BAD)
def test_faults_in_an_npz_file(case: str, folder: Path, capsys: Capture) -> None:
    changes, text = BAD[case]
    npz(folder, **changes)
    run = ("run", "age_gender_stitch", "data.source.path=faces.npz")
    refused(lambda: called(capsys, *run), folder, [AT + text])


def listed(values: Array, at: int, other: object) -> list[object]:
    rows: list[object] = list(values)
    rows[at] = other
    return rows


BAD_TABLES: dict[str, tuple[dict[str, Any], str]] = {
    "narrow": ({"embedding": EMBEDDING[:, :64]}, "'embedding' has shape (40, 64) of float32, expected (n, 128) num"),
    "ragged": (
        {"embedding": listed(EMBEDDING, 7, EMBEDDING[7, :5])},
        "row 7, column 'embedding': the vector has 5 numbers, the first one 128",
    ),
    "null": ({"embedding": listed(EMBEDDING, 7, None)}, "row 7, column 'embedding': the vector is missing"),
    "nan": ({"embedding": NAN_5}, "row 5, column 'embedding': the vector holds a number that is not finite"),
    "gender_word": ({"gender": WOMAN_6}, f"faces.parquet:row 6: gender is 'woman', {ALLOWED}"),
    "gender_truth": ({"gender": [True] * N}, f"faces.parquet:row 0: gender is 'true', {ALLOWED}"),
    "no_gender": ({"gender": None}, "no column 'gender'; columns: embedding, mirrored, young, person"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_TABLES)
def test_faults_in_a_parquet_file(case: str, folder: Path, capsys: Capture) -> None:
    changes, text = BAD_TABLES[case]
    parquet(folder, **changes)
    run = ("run", "age_gender_stitch", "data.source.path=faces.parquet")
    refused(lambda: called(capsys, *run), folder, [AT + text])


OVERRIDES = {
    "missing": (["data.source.path=face.npz"], "face.npz: no such file (did you mean 'faces.npz'?)"),
    "suffix": (["data.source.path=faces.npy"], "embeddings are read from .npz, .parquet or .csv, not '.npy'"),
    "people": (
        ["data.source.people=3"],
        "data.source.people: Input should be greater than or equal to 4, got int",
    ),
    "too_many": (
        ["data.source.people=100000", "data.source.images=11"],
        "data.source.people: 100000 people x 11 images are too many: at most 1000000 are generated",
    ),
}


@pytest.mark.parametrize("case", OVERRIDES)
def test_faults_on_the_command_line(case: str, folder: Path, capsys: Capture) -> None:
    overrides, text = OVERRIDES[case]
    npz(folder)
    refused(lambda: called(capsys, "validate", "age_gender_stitch", *overrides), folder, [text])


def test_a_group_needs_people_and_a_person_each(folder: Path, capsys: Capture) -> None:
    run = ("run", "age_gender_stitch", "data.source.path=faces.npz", "data.split.group=person")
    npz(folder, person=None)
    text = "data.split.group: no column 'person'; columns: gender, young"
    refused(lambda: called(capsys, *run), folder, [text])
    npz(folder, person=np.where(np.arange(N) == 5, np.nan, np.arange(N) // 4))
    text = "data.split.group: faces.npz:row 5: no group in column 'person'"
    refused(lambda: called(capsys, *run), folder, [text])


# --- the recipes, against what was published ---


@pytest.fixture(scope="module", params=RECIPES)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return load_recipe(request.param)


def test_there_are_three_recipes() -> None:
    assert tuple(name for name in built_in_names() if name.startswith("age_gender")) == RECIPES


def test_a_recipes_data_are_the_published_ones(recipe: Recipe) -> None:
    assert recipe.data.only.model_dump() == {"kind": "face_embeddings", "people": 100, "images": 20}
    assert recipe.data.split.held_out == {"test": 0.1}
    assert recipe.data.split.group is None, "the published split is random"
    assert recipe.data.standardize.kind == "none"
    assert {task: (spec.kind, spec.target, spec.weight) for task, spec in recipe.tasks.items()} == {
        "gender": ("faces.gender", "gender", 1.0),
        "young": ("faces.young", "young", 1.0),
    }
    assert recipe.weighting.kind == "sum"
    assert recipe.schedule.kind == "constant"
    assert recipe.train.batch_size == 128


def test_a_recipes_network_is_the_published_one(recipe: Recipe) -> None:
    import torch

    from mtl.model.stitch import CrossStitch

    trainer, _ = prepare(recipe)
    model = trainer.built.model
    assert model.trunk.towers.shapes == {"fc1": (32,), "fc2": (32,), "drop2": (32,), "fc3": (32,)}
    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    assert len(norms) == 4, "three layers and the output"
    assert {norm.eps for norm in norms} == {1e-3}
    assert {norm.momentum for norm in norms} == {0.001}, "moving averages with decay 0.999"
    dropouts = [m for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    assert {d.p for d in dropouts} == {0.2}
    assert len(dropouts) == 2, "after the second and the third stitch"
    stitched = recipe.name != "age_gender_independent"
    sites = {name: unit for name, unit in model.trunk.stitches.items() if isinstance(unit, CrossStitch)}
    assert list(sites) == (["fc1", "fc2", "fc3"] if stitched else [])
    for unit_ in sites.values():
        assert torch.equal(unit_.alpha, torch.eye(2))
    # two towers of 128-32-32-32-2 without biases, with a scale and a shift per unit and output
    weights = 2 * (128 * 32 + 32 * 32 + 32 * 32 + 32 * 2)
    scales = 2 * 2 * (32 + 32 + 32 + 2)
    assert sum(p.numel() for p in model.parameters()) == weights + scales + 4 * len(sites)


def test_a_recipes_stitches_are_the_published_ones(recipe: Recipe) -> None:
    if recipe.name == "age_gender_independent":
        assert recipe.model.sharing.model_dump() == {"kind": "none"}
        return
    assert recipe.model.sharing.model_dump() == {
        "kind": "cross_stitch",
        "after": ("fc1", "fc2", "fc3"),
        "granularity": "scalar",
        "init": "identity",
        "lr_scale": 1.0,
    }


def test_a_recipes_training_is_the_published_one_or_the_published_scripts(recipe: Recipe) -> None:
    optimizer = recipe.optimizer.model_dump()
    script = recipe.name == "age_gender_stitch_script"
    assert optimizer["kind"] == "adam"
    assert optimizer["lr"] == (0.0003 if script else 0.001)
    assert optimizer["l2"] == (1e-3 if script else 1e-5)
    assert recipe.train.epochs == (800 if script else 30)


def test_the_recipes_differ_in_nothing_else() -> None:
    plain = {name: load_recipe(name).plain() for name in RECIPES}
    for name, own in (
        ("age_gender_independent", {"model"}),
        ("age_gender_stitch_script", {"optimizer", "train"}),
    ):
        both = plain["age_gender_stitch"].keys() | plain[name].keys()
        differing = {key for key in both if plain[name].get(key) != plain["age_gender_stitch"].get(key)}
        assert differing == {"name", "description", *own}

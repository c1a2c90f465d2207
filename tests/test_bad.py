"""Each file of tests/bad/ is refused with the lines beside it; a new case is a new pair of files.

tests/bad/meaning/: a recipe, and what each line of the answer contains. Its first line may be `args: ` and
the command with what follows the recipe; else it is `validate`. Names begin with the row of the table of
bad recipes, if they are in it. tests/bad/plugins/: a plug-in with such a file; or without one, for use by a
recipe.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from mtl.errors import ENVIRONMENT
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe
from tests.support import recipes
from tests.support.assertions import Capture, Done, called, plugins_undone, refused

BAD = Path(__file__).parent / "bad"
MEANING = sorted((BAD / "meaning").glob("*.yaml"))
PLUGINS = sorted(path.with_suffix(".py") for path in (BAD / "plugins").glob("*.txt"))
S_ROWS = (1, 2, 3, 4, 5, 6, 8, 11, 13, 15, 17, 18, 19, 20, 22, 23, 24, 26, 27)
ROWS = {"C1", "C2", "C5", *(f"S{i}" for i in S_ROWS)}
VALID = recipes.text()


def case_of(path: Path) -> tuple[list[str], list[str]]:
    """The command's arguments, and what each line of its answer contains."""
    first, *rest = path.with_suffix(".txt").read_text(encoding="utf-8").splitlines()
    if not first.startswith("args: "):
        return ["validate", "r.yaml"], [first, *rest]
    given = first.removeprefix("args: ").replace("{plugins}", str(BAD / "plugins"))
    command, *more = shlex.split(given)
    return [command, "r.yaml", *more], rest


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    with plugins_undone():
        yield


def test_the_cases_are_found_in_pairs() -> None:
    assert len(MEANING) >= 131
    assert len(PLUGINS) >= 6
    assert [path.with_suffix(".txt") for path in MEANING] == sorted((BAD / "meaning").glob("*.txt"))
    assert {path.stem.split("-")[0] for path in MEANING} >= ROWS
    texts = " ".join(path.with_suffix(".txt").read_text(encoding="utf-8") for path in MEANING)
    for plugin in (BAD / "plugins").glob("*.py"):
        assert plugin in PLUGINS or f"{{plugins}}/{plugin.name}" in texts


@pytest.mark.parametrize("path", MEANING, ids=lambda path: path.stem)
def test_bad_meaning(path: Path, tmp_path: Path, capsys: Capture) -> None:
    shutil.copy(path, tmp_path / "r.yaml")
    arguments, expected = case_of(path)
    assert expected
    refused(lambda: called(capsys, *arguments), tmp_path, expected)


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: path.stem)
def test_bad_plugin(path: Path, tmp_path: Path, capsys: Capture) -> None:  # C4
    (tmp_path / "r.yaml").write_text(VALID, encoding="utf-8")
    shutil.copy(path, tmp_path)
    expected = path.with_suffix(".txt").read_text(encoding="utf-8").splitlines()
    refused(lambda: called(capsys, "validate", "r.yaml", "--plugin", path.name), tmp_path, expected)


def test_a_plugin_that_is_no_python(
    tmp_path: Path, capsys: Capture
) -> None:  # C4; ruff would refuse the file
    (tmp_path / "r.yaml").write_text(VALID, encoding="utf-8")
    (tmp_path / "broken.py").write_text("def broken(:\n", encoding="utf-8")
    expected = ["plugin 'broken.py': raised SyntaxError: "]
    refused(lambda: called(capsys, "validate", "r.yaml", "--plugin", "broken.py"), tmp_path, expected)


LACKING = """
import mtl

@mtl.register_tracker("lacking")
class Lacking(mtl.TrackerSpec):
    reference = "ours"
    package, install = "no_such_package", "pip install no-such-package"

    def open(self):
        raise AssertionError("it is not opened")
"""


@pytest.mark.parametrize(
    "command", [["validate"], ["run", "--out", "it"], ["run", "--out", "it", "--dry-run"]]
)
def test_a_tracker_whose_package_is_absent(command: list[str], tmp_path: Path, capsys: Capture) -> None:
    recipes.write(tmp_path, trackers=["lacking"])
    (tmp_path / "lacking.py").write_text(LACKING, encoding="utf-8")
    expected = ["r.yaml:11:12: trackers[0]: no_such_package is not installed; pip install no-such-package"]
    arguments = [command[0], "r.yaml", *command[1:], "--plugin", "lacking.py"]
    refused(lambda: called(capsys, *arguments), tmp_path, expected, code=ENVIRONMENT)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("[tensorbord]", "trackers[0]: unknown tracker 'tensorbord'; known: "),
        (
            "[tensorboard, {kind: mlflow, url: x}]",
            "trackers[1].url: unknown key 'url' for mlflow (did you mean 'uri'?)",
        ),
        ("[3]", "trackers[0]: a tracker is a mapping with a key 'kind', got 3"),
        ("tensorboard", "trackers: "),
    ],
)
def test_a_tracker_that_is_none(given: str, expected: str, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "r.yaml").write_text(f"{VALID}trackers: {given}\n", encoding="utf-8")
    refused(lambda: called(capsys, "validate", "r.yaml"), tmp_path, [expected])


@pytest.mark.parametrize("name", ["nosuch", "nosuch.py", "", "os", "a\nb.py"])
def test_a_plugin_that_is_not_there(name: str, tmp_path: Path, capsys: Capture) -> None:  # C3
    (tmp_path / "r.yaml").write_text(VALID, encoding="utf-8")
    expected = [f"--plugin: cannot import plugin {name!r}: "]
    refused(lambda: called(capsys, "validate", "r.yaml", "--plugin", name), tmp_path, expected)


@pytest.mark.parametrize(
    "name",
    ["S1-seed", "S8-optimizer", "S19-newer", "S26-every-zero", "towers-task-twice", "C2-lr", "base-cyclic"],
)
def test_in_a_process_of_its_own(name: str, tmp_path: Path, run_mtl: Callable[..., Done]) -> None:
    shutil.copy(BAD / "meaning" / f"{name}.yaml", tmp_path / "r.yaml")
    arguments, expected = case_of(BAD / "meaning" / f"{name}.yaml")
    refused(lambda: run_mtl(*arguments), tmp_path, expected)


def test_several_recipes_in_one_go(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "good.yaml").write_text(VALID, encoding="utf-8")
    expected = ["nosuch.yaml: no such file"]
    for name in ("S1-seed", "S8-optimizer", "target-near-miss"):  # the last is found after the others' text
        shutil.copy(BAD / "meaning" / f"{name}.yaml", tmp_path)
        expected += [
            line.replace("r.yaml", f"{name}.yaml") for line in case_of(BAD / "meaning" / f"{name}.yaml")[1]
        ]
    names = ["nosuch.yaml", "S1-seed.yaml", "S8-optimizer.yaml", "good.yaml", "target-near-miss.yaml"]
    out = "ok good.yaml: 2 tasks, 2 towers, 164 parameters\n"
    refused(lambda: called(capsys, "validate", *names), tmp_path, expected, out=out)


def test_a_recipe_with_1025_tasks(tmp_path: Path, capsys: Capture) -> None:  # S7
    tasks = "".join(f"  t{i}: {{kind: multiclass, target: task0}}\n" for i in range(1025))
    head, tail = VALID.split("  a: ")[0], VALID.split("task1}\n")[1]
    (tmp_path / "r.yaml").write_text(head + tasks + tail, encoding="utf-8")
    expected = ["r.yaml:5:3: tasks: 1025 tasks given; at most 1024 tasks"]
    refused(lambda: called(capsys, "validate", "r.yaml"), tmp_path, expected)
    assert called(capsys, "validate", "r.yaml", "~tasks.t1024").stdout.startswith("ok r.yaml: 1,024 tasks")


def test_1025_tasks_given_in_python() -> None:  # S7
    """A checked recipe cannot have more either, however it is made."""
    recipe = load_recipe("synthetic_stitch").model_dump()
    recipe["tasks"] = {f"t{i}": {"kind": "multiclass", "target": "task0"} for i in range(1025)}
    with pytest.raises(ValidationError, match="1025 tasks given; at most 1024 tasks"):
        Recipe.model_validate(recipe)


def test_more_faults_than_are_shown(tmp_path: Path, capsys: Capture) -> None:
    tasks = "".join(f"  t{i}: {{kind: multiclas, target: task0}}\n" for i in range(14))
    head, tail = VALID.split("  a: ")[0], VALID.split("task1}\n")[1]
    (tmp_path / "r.yaml").write_text(head + tasks + tail, encoding="utf-8")
    expected = [
        f"r.yaml:{5 + i}:{14 + (i > 9)}: tasks.t{i}.kind: unknown task 'multiclas'" for i in range(14)
    ]
    refused(lambda: called(capsys, "validate", "r.yaml"), tmp_path, expected)


TYPOS = [
    # key as it is, typo, line in which it stands, the key that is meant
    ("seed: 0", "sed: 0", "sed", "seed"),
    ("standardize:", "standardise:", "data.standardise", "standardize"),
    ("  towers: per_task", "  tower: per_task", "model.tower", "towers"),
    ("    activation: relu", "    activaton: relu", "model.backbone.activaton", "activation"),
    ("granularity:", "granulrity:", "model.sharing.granulrity", "granularity"),
    ("lr_scale: 1.0", "lr_scal: 1.0", "model.sharing.lr_scal", "lr_scale"),
    ("head: {dropout", "head: {dropuot", "model.head.dropuot", "dropout"),
    ("l2: 1e-5", "l2x: 1e-5", "optimizer.l2x", "l2"),
    ("schedule: {", "shedule: {", "shedule", "schedule"),
    ("batch_size: 128", "batchsize: 128", "train.batchsize", "batch_size"),
]


def test_one_typo_in_each_of_ten_keys(tmp_path: Path, run_mtl: Callable[..., Done]) -> None:
    """All in one go: the right line, the right column, the right suggestion."""
    text = (BAD.parents[1] / "recipes" / "fashion_stitch.yaml").read_text(encoding="utf-8")
    for key, typo, _, _ in TYPOS:
        assert text.count(key) == 1
        text = text.replace(key, typo)
    (tmp_path / "r.yaml").write_text(text, encoding="utf-8")
    lines = text.splitlines()
    found = []
    for _, typo, path, meant in TYPOS:
        name = path.split(".")[-1]
        number = next(i for i, line in enumerate(lines) if typo in line)
        column = lines[number].index(name + ":") + 1
        found.append(
            (
                number + 1,
                column,
                f"r.yaml:{number + 1}:{column}: {path}: unknown key {name!r} ... {meant!r}?)",
            )
        )
    refused(lambda: run_mtl("validate", "r.yaml"), tmp_path, [text for _, _, text in sorted(found)])


def test_a_weighting_whose_packages_are_missing(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtl.recipe.keys.checks.find_spec", lambda name: None)
    text = recipes.text(tasks=recipes.classes("ab"), weighting={"kind": "cagrad"})
    (tmp_path / "r.yaml").write_text(text, encoding="utf-8")
    expected = [
        "weighting.kind: cagrad needs cvxpy and clarabel, not installed here; pip install 'mtl-recipes["
    ]
    refused(lambda: called(capsys, "validate", "r.yaml"), tmp_path, expected)

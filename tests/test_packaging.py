"""The wheel, the wheel made from the sdist and the editable install all hold the same whole package."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
# what is measured is the checkout, not the copies made here
PACKAGES = sysconfig.get_paths()["purelib"]
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_") and k != "PYTHONPATH"}

pytestmark = pytest.mark.xdist_group("packaging")  # one worker builds


def run(*command: str | Path, cwd: Path, path: Path | None = None) -> str:
    """Standard output of `python *command`, which must succeed."""
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env={**ENVIRONMENT, **({"PYTHONPATH": str(path)} if path else {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a clone would hold: no ignored files, links kept as links."""
    listing = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    copy = tmp_path_factory.mktemp("packaging") / "check out"  # a blank in the path must not matter
    for name in filter(None, listing.stdout.split("\0")):
        if (ROOT / name).is_file() or (ROOT / name).is_symlink():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
    assert (copy / "mtl/tasks").is_symlink()
    assert (copy / "mtl/recipes").is_symlink()
    return copy


@pytest.fixture(scope="module")
def wheels(checkout: Path) -> dict[str, Path]:
    """The wheel built from the checkout, and the one built from the sdist."""
    run("-m", "build", "--no-isolation", "--outdir", "from-sdist", cwd=checkout)  # sdist, then wheel from it
    run("-m", "build", "--no-isolation", "--wheel", "--outdir", "direct", cwd=checkout)
    return {kind: next((checkout / kind).glob("*.whl")) for kind in ("from-sdist", "direct")}


def expected(checkout: Path) -> set[str]:
    """Each module and each data file that must be installed."""
    patterns = (
        "mtl/**/*.py",
        "mtl/py.typed",
        "mtl/tasks/*.py",  # ** does not follow links
        "mtl/recipes/*.yaml",
        "mtl/recipes/recipe.schema.json",
        "mtl/sources/fashion_mnist_sample/*",
        "mtl/report/templates/*",
    )
    return {str(path.relative_to(checkout)) for pattern in patterns for path in checkout.glob(pattern)}


@pytest.mark.parametrize("kind", ["from-sdist", "direct"])
def test_wheel_holds_the_package_and_nothing_else(kind: str, checkout: Path, wheels: dict[str, Path]) -> None:
    with zipfile.ZipFile(wheels[kind]) as wheel:
        names = set(wheel.namelist())
    info = f"mtl_recipes-{VERSION}.dist-info"
    assert {name for name in names if name.split("/")[0] != info} == expected(checkout)
    assert {f"{info}/licenses/LICENSE", f"{info}/entry_points.txt"} <= names


def test_expected_files_are_of_every_sort(checkout: Path) -> None:
    names = expected(checkout)
    for ending in (
        "mtl/__init__.py",
        "mtl/tasks/__init__.py",
        "mtl/recipes/fashion_stitch.yaml",
        "mtl/recipes/recipe.schema.json",
        "mtl/py.typed",
        "mtl/report/templates/run.html.j2",
        "mtl/report/templates/style.css",
        "fashion_mnist_sample/train-images-idx3-ubyte.gz",
    ):
        assert any(name.endswith(ending) for name in names), ending


@pytest.mark.parametrize("kind", ["from-sdist", "direct"])
def test_installed_wheel_works_from_another_folder(
    kind: str, checkout: Path, wheels: dict[str, Path], tmp_path: Path
) -> None:
    target, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    install = ("-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", target)
    run(*install, wheels[kind], cwd=elsewhere)
    where = run("-c", "import mtl; print(mtl.__file__)", cwd=elsewhere, path=target)
    assert Path(where.strip()) == target / "mtl/__init__.py"
    assert VERSION in run("-m", "mtl", "--version", cwd=elsewhere, path=target)
    listed = run("-m", "mtl", "ls", cwd=elsewhere, path=target)
    names = [path.stem for path in (checkout / "recipes").glob("*.yaml")]
    assert names
    for name in names:
        assert name in listed


def test_the_readmes_third_task_and_plugin_run_from_a_wheel(wheels: dict[str, Path], tmp_path: Path) -> None:
    """What README shows, as somebody who has only the wheel would try it, on the images that are in it."""
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run(
        "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", site, wheels["direct"], cwd=elsewhere
    )  # fmt: skip
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (third,) = [text for text in re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL) if "\nbase: " in text]
    (plugin,) = [text for text in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "@mtl." in text]
    (elsewhere / "third.yaml").write_text(third, encoding="utf-8")
    (elsewhere / "footwear.py").write_text(plugin, encoding="utf-8")
    small = ("model.backbone.stages=[{name: fc1, kind: linear, features: 8}]", "model.sharing.after=[fc1]")
    quick = ("data.source.sample=true", *small, "train.epochs=1", "--quiet")
    run("-m", "mtl", "run", "third.yaml", *quick, "--out", "third", cwd=elsewhere, path=site)
    shoe = ("tasks.shoe={kind: fashion.footwear}", "--plugin", "footwear.py")
    run("-m", "mtl", "run", "fashion_stitch", *shoe, *quick, "--out", "shoe", cwd=elsewhere, path=site)
    for name, task in (("third", "footwear"), ("shoe", "shoe")):
        record = json.loads((elsewhere / name / "run.json").read_text(encoding="utf-8"))
        assert list(record["classes"]) == ["garment", "audience", task]
        assert record["status"] == "finished"
        last = (elsewhere / name / "sharing.jsonl").read_text(encoding="utf-8").splitlines()[-1]
        assert all(len(shared["values"]) == 3 for shared in json.loads(last)["sharing"].values())


def test_editable_install_works_from_another_folder(checkout: Path, tmp_path: Path) -> None:
    build = "import sys; from setuptools.build_meta import build_editable; build_editable(sys.argv[1])"
    run("-c", build, tmp_path, cwd=checkout)
    site = tmp_path / "site"
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    # a .pth file counts only in a site folder; without this environment's own, where mtl may be installed too
    look = (
        "import site, sys\nsite.addsitedir(sys.argv[1])\nsys.path.append(sys.argv[2])\nimport mtl.tasks\n"
        "from importlib.resources import files\n"
        "print(mtl.tasks.__file__)\nprint(*(p.name for p in (files('mtl') / 'recipes').iterdir()))"
    )
    tasks, recipes = run("-I", "-S", "-c", look, site, PACKAGES, cwd=tmp_path).splitlines()
    assert Path(tasks) == checkout / "mtl/tasks/__init__.py"
    assert {path.name for path in (checkout / "recipes").iterdir()} == set(recipes.split())

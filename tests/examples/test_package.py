"""examples/mtl_footwear: built, installed into a folder of its own, and used by its entry point's name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "examples" / "mtl_footwear"
Run = Callable[..., subprocess.CompletedProcess[str]]
RECIPE = (
    "fashion_fast",
    "tasks.sandal={kind: footwear.sandal}",
    "data.source.sample=true",
    "model.backbone.stages=[{name: fc1, kind: linear, features: 8}]",
    "model.sharing.after=[fc1]",
    "train.epochs=1",
)

pytestmark = pytest.mark.xdist_group("packaging")  # one worker builds


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(PACKAGE, folder / "source", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", folder, "source"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        target,
        wheel,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def installed(site: Path) -> dict[str, str]:
    """The environment in which the package is there."""
    return {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}


def test_the_wheel_holds_one_module_and_its_entry_point(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
        (points,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        text = archive.read(points).decode()
    assert names == ["mtl_footwear/__init__.py"]
    assert text.split() == ["[mtl.plugins]", "footwear", "=", "mtl_footwear"]


def test_it_is_used_by_its_name(run_mtl: Run, installed: dict[str, str], tmp_path: Path) -> None:
    done = run_mtl("run", *RECIPE, "--plugin", "footwear", "--out", "run", "--quiet", env=installed)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert record["plugins"] == ["footwear"]
    assert "test/sandal/auroc" in record["results"]
    refused = run_mtl("run", "--resume", "run", env=installed)
    line = "error: run: the run began with plug-ins that are not loaded; add --plugin footwear\n"
    assert (refused.returncode, refused.stderr) == (2, line)
    again = run_mtl("run", "--resume", "run", "--plugin", "footwear", "--quiet", env=installed)
    assert (again.returncode, again.stderr) == (0, "warning: run: already finished at step 3\n")


def test_it_is_not_imported_unless_named(run_mtl: Run, installed: dict[str, str]) -> None:
    done = run_mtl("ls", "tasks", env=installed)
    assert done.returncode == 0
    assert "footwear" not in done.stdout
    named = run_mtl("ls", "tasks", "--plugin", "footwear", env=installed)
    assert "footwear.sandal" in named.stdout


def test_a_near_miss_and_a_place_without_it(run_mtl: Run, installed: dict[str, str]) -> None:
    near = run_mtl("ls", "tasks", "--plugin", "footwaer", env=installed)
    assert near.returncode == 2
    assert near.stderr.endswith("(did you mean 'footwear'?); installed: footwear\n")
    nowhere = run_mtl("ls", "tasks", "--plugin", "footwear")
    assert nowhere.returncode == 2
    assert "cannot import plugin 'footwear'" in nowhere.stderr

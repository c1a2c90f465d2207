"""`mtl doctor`: each check says something true of this machine, and a failed one names itself."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import pytest
import torch

from mtl import __version__
from mtl.commands import doctor
from mtl.errors import ENVIRONMENT, EnvironmentFault, UserError
from tests.support.assertions import Capture, called

CHECKS = ["versions", "devices", "cache", "fashion_mnist", "recipes", "training"]


def test_all_is_well(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(doctor, "_training", lambda: "4 steps")  # timed below
    done = called(capsys, "doctor")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    assert [line[1] for line in lines] == CHECKS
    assert all(line[0] == "ok" for line in lines)
    text = {name: said for _, name, said in lines}
    assert text["versions"].startswith(f"mtl {__version__}, Python {platform.python_version()}, torch ")
    assert torch.__version__ in text["versions"]
    assert text["devices"].startswith("auto is ")
    assert text["cache"].startswith(f"{tmp_path / 'cache'}, ")
    assert text["fashion_mnist"].startswith("the shipped sample is whole: ")
    assert re.fullmatch(r"\d+ built-in recipes are valid", text["recipes"])
    assert not list((tmp_path / "cache").iterdir())


def test_a_few_steps_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = doctor._training()
    assert re.fullmatch(
        r"4 steps of fashion_stitch, batch 128: [\d.,]+ ms a step with \d+ threads? of torch for \d+ cores?; "
        r"an epoch of 60,000 images takes about .* \(.*\)",
        said,
    )
    assert not list(tmp_path.iterdir())


def test_the_speed_has_a_judgement() -> None:
    assert doctor._speed(0.2).endswith(
        "an epoch of 60,000 images takes about 1 min 34 s (as fast as it should be)"
    )
    assert "takes about 6 min 33 s (slow: two free cores take one to three minutes" in doctor._speed(0.838)


@pytest.mark.parametrize("are_there", [False, True])
def test_it_says_whether_all_images_are_there(
    are_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtl.sources import fashion_mnist

    monkeypatch.setenv("MTL_CACHE", str(tmp_path))
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "no")
    if are_there:
        (tmp_path / "fashion_mnist").mkdir()
        for file in fashion_mnist.FILES:
            (tmp_path / "fashion_mnist" / file.name).touch()
    said = doctor._fashion_mnist()
    where = (
        f"are in {tmp_path / 'fashion_mnist'}" if are_there else "are not here: the first run that needs them"
    )
    assert f"; all 70,000 images {where}" in said


def test_every_failed_check_is_told_and_the_others_are_run(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> str:
        raise UserError("there", "it is broken", "mend it")

    for name in CHECKS:
        monkeypatch.setattr(doctor, f"_{name}", fails if name in ("cache", "recipes") else lambda: "well")
    done = called(capsys, "doctor")
    assert done.returncode == ENVIRONMENT
    assert done.stderr == "error: mtl doctor: 2 of 6 checks failed: cache, recipes\n"
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["ok", "ok", "fails", "ok", "fails", "ok"]
    assert lines[2] == "fails cache          there: it is broken; mend it"


def test_a_cache_that_is_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # C9
    (tmp_path / "file").touch()
    monkeypatch.setenv("MTL_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(EnvironmentFault) as caught:
        doctor._cache()
    assert "is not writable: " in str(caught.value)
    assert str(caught.value).endswith("; set MTL_CACHE")


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:  # C6
    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "no-such-package"))
    with pytest.raises(
        EnvironmentFault, match="no-such-package is not installed; pip install no-such-package"
    ):
        doctor._versions()

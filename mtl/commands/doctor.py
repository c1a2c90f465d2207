"""`mtl doctor` tells whether this machine is ready, and how fast it is."""

from __future__ import annotations

import math
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import perf_counter

from mtl import __version__
from mtl.console import counted, duration, file_size, number, rows_of_splits, say
from mtl.data.files.download import ROWS, cache_folder
from mtl.errors import EnvironmentFault, UserError

Check = Callable[[], str]
BATCH = 128
SLOW = 240
"""Seconds of an epoch from which a machine is slower than two free cores, which take 60 to 180."""
PACKAGES = ("torch", "torchmetrics", "pydantic", "numpy", "safetensors", "pyarrow", "pillow", "matplotlib")


def examine() -> None:
    """Run every check, and print a line for each.

    Raises:
        EnvironmentFault: a check failed; the other checks were run all the same.
    """
    checks: dict[str, Check] = {
        "versions": _versions,
        "devices": _devices,
        "cache": _cache,
        "fashion_mnist": _fashion_mnist,
        "recipes": _recipes,
        "training": _training,
    }
    failed = []
    for name, check in checks.items():
        try:
            say(f"ok    {name:<14} {check()}")
        except UserError as error:
            failed.append(name)
            say(f"fails {name:<14} {error}")
    if failed:
        raise EnvironmentFault(
            "mtl doctor", f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}"
        )


def _versions() -> str:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            raise EnvironmentFault("", f"{package} is not installed", f"pip install {package}") from None
    return f"mtl {__version__}, Python {platform.python_version()}, {', '.join(found)}"


def _devices() -> str:
    import torch

    from mtl.training.devices import resolve

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    capability = torch.backends.cpu.get_cpu_capability()
    cpu = f"CPU {capability}, {_threads()}"
    return f"auto is {resolve('auto')}; {'; '.join([cpu, *names])}"


def _threads() -> str:
    """How many threads torch takes, of how many cores."""
    import torch

    return f"{counted(torch.get_num_threads(), 'thread')} of torch for {counted(os.cpu_count() or 1, 'core')}"


def _cache() -> str:
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise EnvironmentFault(str(folder), f"is not writable: {error.strerror}", "set MTL_CACHE") from None
    free = shutil.disk_usage(folder).free
    held = sum(path.stat().st_size for path in (folder / ROWS).glob("*/*"))
    stores = f", {file_size(held)} in stores of rows ({folder / ROWS}, which may be removed)" if held else ""
    return f"{folder}, {file_size(free)} free{stores}"


def _fashion_mnist() -> str:
    from mtl.recipe.specs import SOURCES

    source = SOURCES["fashion_mnist"].model_validate({"kind": "fashion_mnist", "sample": True})
    columns = source.columns(0)
    folder = source.found_in()
    full = (
        f"are in {folder}"
        if folder is not None
        else "are not here: the first run that needs them downloads 31 MB"
    )
    return f"the shipped sample is whole: {rows_of_splits(columns.splits)}; all 70,000 images {full}"


def _recipes() -> str:
    from mtl.experiment.trial import build_and_try
    from mtl.recipe.load import built_in_names, load_recipe

    for name in built_in_names():
        build_and_try(load_recipe(name))
    return f"{len(built_in_names())} built-in recipes are valid"


def _training() -> str:
    from mtl.experiment.run import run
    from mtl.training.events import Event, Stepped

    class Clock:
        """Records the times of the optimizer steps."""

        def __init__(self) -> None:
            self.times = [perf_counter()]

        def on(self, event: Event) -> None:
            if isinstance(event, Stepped):
                self.times.append(perf_counter())

    clock = Clock()
    sample = (
        "data.source={kind: fashion_mnist, sample: true}",
        f"train={{max_steps: 4, batch_size: {BATCH}}}",
    )
    with tempfile.TemporaryDirectory() as folder:
        run("fashion_stitch", sample, out=Path(folder, "run"), listeners=(clock,))
        gaps = [after - before for before, after in zip(clock.times[1:], clock.times[2:], strict=False)]
    return f"4 steps of fashion_stitch, batch {BATCH}: {_speed(median(gaps))}"


def _speed(seconds: float) -> str:
    """What a step of so many seconds means for an epoch of 60,000 images."""
    epoch = seconds * math.ceil(60_000 / BATCH)
    slow = "slow: two free cores take one to three minutes, so other programs or OMP_NUM_THREADS hold this machine back"
    step = f"{number(seconds * 1e3)} ms a step with {_threads()}"
    said = f"{step}; an epoch of 60,000 images takes about {duration(epoch)}"
    return f"{said} ({slow if epoch > SLOW else 'as fast as it should be'})"

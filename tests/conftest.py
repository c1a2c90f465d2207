"""What every test starts from: seeded, deterministic, one thread; and the command as a user starts it."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support import raise_sites

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell started the tests in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)
pytest.register_assert_rewrite("tests.support.assertions")  # a failure there shows the values
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    random.seed(0)
    np.random.seed(0)  # users' code may draw from it
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _bad_inputs_apart(request: pytest.FixtureRequest) -> Iterator[None]:
    with raise_sites.in_context(request.node.nodeid):
        yield


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was interrupted after step 8 of 16, with checkpoints at 4 and 8; a test that changes it copies it."""
    from tests.support.small_run import make_small_run

    return make_small_run(tmp_path_factory.mktemp("small") / "run")


@pytest.fixture
def run_mtl(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`run_mtl("validate", "r.yaml", cwd=..., env=..., cache=True)` runs `python -m mtl` in a new process.

    `env` is added to this process's environment; `cache` puts MTL_CACHE into an empty folder.
    """

    def run(
        *args: str | Path,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        cache: bool = False,
        timeout: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        own = {"PYTHONPATH": os.pathsep.join(paths)}
        if cache:
            own["MTL_CACHE"] = str(tmp_path / "mtl-cache")
        return subprocess.run(
            [sys.executable, "-m", "mtl", *map(str, args)],
            cwd=cwd or tmp_path,
            env={**os.environ, **own, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run

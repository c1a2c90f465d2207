"""A process of the command line starts without what torch and torchmetrics load beside, with the same results."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

STEPS = """
import sys
import torch
if sys.argv[1] == "lean":
    from mtl.training.process import load_torch
    load_torch()
torch.manual_seed(0)
optimizers = (torch.optim.Adam, {"fused": True}), (torch.optim.AdamW, {}), (torch.optim.SGD, {"momentum": 0.9})
for kind, options in optimizers:
    weight = torch.nn.Parameter(torch.randn(5))
    optimizer = kind([weight], lr=0.1, **options)
    for _ in range(3):
        optimizer.zero_grad()
        (weight**2).sum().backward()
        optimizer.step()
    print(kind.__name__, weight.tolist(), sorted(optimizer.state_dict()))
import torchmetrics
metric = torchmetrics.classification.MulticlassAccuracy(3)
metric.update(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 1, 2]))
print(metric.compute().item())
import scipy.signal
print(scipy.signal.convolve([1.0, 2.0], [1.0, 1.0]).tolist())
"""
LOADED = """
import sys
from mtl.__main__ import main
code = main()
heavy = ("torch", "torchmetrics", "torch._dynamo", "sympy", "scipy.signal", "matplotlib", "scipy.optimize", "pyarrow")
print(*[name for name in heavy if name in sys.modules])
sys.exit(code)
"""


TOY = ("synthetic_stitch", "train.epochs=1", "data.source.rows=400", "data.source.test_rows=100")


def python(code: str, *arguments: str, **environment: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_optimizers_and_metrics_are_the_same_without_their_ballast() -> None:
    assert python(STEPS, "lean") == python(STEPS, "plain")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--help",), ""),
        (("ls",), ""),
        (("validate", "synthetic_stitch"), "torch torchmetrics"),
        (("run", *TOY, "--quiet"), "torch torchmetrics matplotlib scipy.optimize"),
    ],
)
def test_what_a_command_loads(
    arguments: tuple[str, ...], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert python(LOADED, *arguments).splitlines()[-1] == expected


GARBAGE = """
import gc, sys
from mtl.training.process import load_torch, start_process
usual = gc.get_threshold()
if "start" in sys.argv:
    start_process()
print(gc.get_threshold()[0] // usual[0] > 1, gc.get_freeze_count() > 0)
load_torch()
print(gc.get_threshold() != usual, gc.get_freeze_count() > 100_000)
"""


def test_imports_are_not_searched_for_garbage_in_a_process_of_mtl() -> None:
    assert python(GARBAGE, "start").split() == ["True", "False", "False", "True"]
    assert python(GARBAGE).split() == ["False"] * 4


SETTINGS = """
import os
from mtl.training.process import start_process
start_process()
print(os.environ.get("GOMP_SPINCOUNT"))
"""


def test_the_users_settings_of_waiting_threads_stay() -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP", "OMP_WAIT"))}

    def spins(**given: str) -> str:
        command = [sys.executable, "-c", SETTINGS]
        return subprocess.run(
            command, env=clean | given, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert int(spins()) > 0
    assert spins(GOMP_SPINCOUNT="5") == "5"
    assert spins(OMP_WAIT_POLICY="active") == "None"

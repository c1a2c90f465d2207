"""A network that torch compiles trains as it does otherwise, and resumes with the same bits."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import mtl
from mtl.errors import EnvironmentFault
from mtl.model.compiled import Compiled
from tests.experiment.test_resume import StopAfter, assert_same, no_plots, recipe, stop_and_resume

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles with g++"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
]


__all__ = ["no_plots"]


def asked(**changes: Any) -> dict[str, Any]:
    """Sixteen rows a batch, and a smaller batch at the end of each epoch; norms settle after nine steps."""
    return recipe(
        train__batch_size=16,
        model__backbone__norm={"kind": "batch", "momentum": 0.9, "debias": True},
        **changes,
    )


def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each compiled pass."""
    seen: list[int] = []
    make = torch.compile

    def compiling(model: Any, **options: Any) -> Any:
        compiled = make(model, **options)

        def forward(x: torch.Tensor, present: Any) -> Any:
            seen.append(len(x))
            return compiled(x, present)

        return forward

    monkeypatch.setattr(torch, "compile", compiling)
    return seen


@pytest.mark.usefixtures("no_plots")
def test_a_compiled_run_has_the_losses_of_a_plain_one_and_resumes_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = mtl.run(asked(), out=tmp_path / "plain", report=False)
    seen = passes(monkeypatch)
    whole = mtl.run(asked(train__compile=True), out=tmp_path / "whole", report=False)
    # 60 rows are three batches of 16 and one of 12; the norms have settled after step 8 of 16
    assert seen == [16] * 6
    for name, value in plain.metrics.items():
        assert whole.metrics[name] == pytest.approx(value, rel=1e-4, abs=1e-4), name

    stop_and_resume(asked(train__compile=True), tmp_path / "parts", StopAfter(step=11))
    assert_same(tmp_path / "whole", tmp_path / "parts")


def test_a_machine_without_a_compiler_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_nothing(model: Any, **options: Any) -> Any:
        def forward(x: torch.Tensor, present: Any) -> Any:
            raise torch._dynamo.exc.TorchDynamoException("no C++ compiler\nand more")

        return forward

    import torch._dynamo

    class Network(torch.nn.Module):
        def forward(self, x: torch.Tensor, present: Any) -> torch.Tensor:
            return x

    monkeypatch.setattr(torch, "compile", compile_nothing)
    network = Compiled(Network(), 3)  # type: ignore[arg-type]
    assert network(torch.ones(2, 1)) is not None  # another size is not compiled
    with pytest.raises(EnvironmentFault) as fault:
        network(torch.ones(3, 1))
    assert "torch cannot compile the network: no C++ compiler" in str(fault.value)
    assert "install a C++ compiler, such as g++, or train without train.compile" in str(fault.value)


def test_a_run_without_a_compiler_does_not_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.cpp_builder as builder

    def none() -> str:
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(builder, "get_cpp_compiler", none)
    with pytest.raises(EnvironmentFault, match="cannot compile the network: No working C"):
        mtl.run(asked(train__compile=True), out=tmp_path / "run", report=False)
    assert not (tmp_path / "run").exists()

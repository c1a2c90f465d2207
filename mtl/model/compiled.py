"""The forward pass of a network, compiled by torch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mtl.errors import EnvironmentFault
from mtl.model.layers import is_settled
from mtl.model.stitched import Logits, StitchedMultiTower


class Compiled:
    """The forward pass in training, compiled for batches of one size; other batches take the network as it is.

    The parameters are those of the network. Results differ from its own by the rounding of float32, since the
    compiler computes several operations in one loop. Whether a pass is compiled depends on the batch and on the
    buffers of the network alone, so that a resumed run takes the same passes as an undisturbed one.

    Args:
        model: the network.
        batch_size: rows.

    Raises:
        EnvironmentFault: torch finds no C++ compiler.
    """

    def __init__(self, model: StitchedMultiTower, batch_size: int) -> None:
        if all(parameter.device.type == "cpu" for parameter in model.parameters()):
            _require_compiler()
        self.model, self.batch_size, self._settled = model, batch_size, False
        # dropout draws as it does without the compiler
        self._compiled = torch.compile(model, dynamic=False, options={"fallback_random": True})

    def __call__(self, x: Tensor, present: Mapping[str, Tensor] | None = None) -> Logits:
        """As the network; see `StitchedMultiTower.forward`.

        Raises:
            EnvironmentFault: torch cannot compile here, as without a C++ compiler.
        """
        # the momentum of a norm that is not settled changes with each step, and is a constant of compiled code
        self._settled = self._settled or is_settled(self.model)
        if len(x) != self.batch_size or not self._settled:
            return self.model(x, present)  # type: ignore[no-any-return]
        try:
            return self._compiled(x, present)  # type: ignore[no-any-return]
        except torch._dynamo.exc.TorchDynamoException as error:
            raise _fault(error) from error


def _require_compiler() -> None:
    """Refuse a machine without the C++ compiler that torch would call, before a run begins.

    Raises:
        EnvironmentFault: torch finds none.
    """
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler
    except ImportError:  # another torch has it elsewhere, and the first compiled step tells
        return
    try:
        get_cpp_compiler()
    except Exception as error:
        raise _fault(error) from error


def _fault(error: Exception) -> EnvironmentFault:
    reason = " ".join(str(error).split())[:200]
    todo = "install a C++ compiler, such as g++, or train without train.compile"
    return EnvironmentFault("", f"torch cannot compile the network: {reason}", todo)

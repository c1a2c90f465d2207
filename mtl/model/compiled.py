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
    """

    def __init__(self, model: StitchedMultiTower, batch_size: int) -> None:
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
            what = f"torch cannot compile the network: {str(error).strip().splitlines()[0]}"
            raise EnvironmentFault(
                "", what, "install a C++ compiler, or set train.compile to false"
            ) from error

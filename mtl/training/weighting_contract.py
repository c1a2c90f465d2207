"""What a weighting must give back, checked where a plug-in's values come in.

Each check raises a `UserError` that names the class and the method. Shapes: N tasks, S of them seen, P shared numbers.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, get_args

from mtl.contracts import broken, called, of_module
from mtl.errors import UserError, quoted
from mtl.training import devices

if TYPE_CHECKING:
    from torch import Tensor

    from mtl.model.weighting import Weighting
    from mtl.recipe.specs import WeightingSpec


def check_weighting(spec: WeightingSpec, weighting: Any) -> Weighting:
    """The module of a weighting; it must need what its settings say, and must have the tasks' weights."""
    from mtl.model.weighting import Needs, Weighting

    if not isinstance(weighting, Weighting):
        raise broken(spec, "build", f"gives {called(weighting)}, not a Weighting")
    if "_parameters" not in vars(weighting) or not hasattr(weighting, "task_weights"):
        raise of_module(weighting, "__init__", "does not call super().__init__(task_weights)")
    if weighting.needs not in get_args(Needs):
        known = ", ".join(get_args(Needs))
        raise of_module(weighting, "needs", f"is {quoted(weighting.needs)}; known: {known}")
    if weighting.needs != spec.needs:
        what = f"is {quoted(weighting.needs)}, but {type(spec).__name__}.needs is {quoted(spec.needs)}"
        raise UserError("", f"{type(weighting).__name__}.needs {what}", "set both to the same word")
    method = "combine" if weighting.needs == "gradients" else "forward"
    if getattr(type(weighting), method) is getattr(Weighting, method):
        raise UserError("", f"{type(weighting).__name__} needs {weighting.needs} but has no method {method}")
    return weighting


def check_objective(weighting: Weighting, losses_N: Tensor, seen_N: Tensor) -> None:
    """The objective is one number with a way back to the losses; linear in them, if it says so."""
    import torch

    def weights_at(losses_N: Tensor) -> Tensor:
        with devices.settings(deterministic=False):  # a random weighting draws the same each time
            devices.seed(torch.device("cpu"), 0)
            return copy.deepcopy(weighting).derivatives(losses_N, seen_N)[0]

    leaf = losses_N.detach().requires_grad_()
    total = weighting(leaf, seen_N)
    if not isinstance(total, torch.Tensor) or total.shape != ():
        got = f"a tensor of shape {tuple(total.shape)}" if isinstance(total, torch.Tensor) else called(total)
        raise of_module(weighting, "forward", f"gives {got}, not one number: sum over the tasks")
    if not total.requires_grad:
        raise of_module(
            weighting, "forward", "gives an objective without a gradient: compute it from the losses by torch"
        )
    if weighting.needs == "losses":
        here, again, elsewhere = map(weights_at, (losses_N, losses_N, 2 * losses_N.detach() + 1))
        # one that has a memory of its own gives other weights each time; a short run refuses it with the right words
        if torch.equal(here, again) and not torch.allclose(here, elsewhere, rtol=1e-4, atol=1e-6):
            what = "is not linear in the losses: its derivatives depend on them"
            raise UserError(
                "", f"{type(weighting).__name__}.forward {what}",
                "set needs to 'totals' in the module and in its settings",
            )  # fmt: skip


def check_combined(weighting: Weighting, found: Any, jacobian_SP: Tensor) -> None:
    """`combine` gives a gradient, and the weights of the tasks or None."""
    if not isinstance(found, tuple) or len(found) != 2:
        raise of_module(weighting, "combine", f"gives {called(found)}, not (gradient, weights or None)")
    n_tasks, n_shared = jacobian_SP.shape[-2:]
    for name, values, wanted in (("a gradient", found[0], (n_shared,)), ("weights", found[1], (n_tasks,))):
        if values is None and name == "weights":
            continue
        shape = getattr(values, "shape", None)
        if shape is None or tuple(shape) != wanted:
            what = called(values) if shape is None else f"shape {tuple(shape)}"
            raise of_module(weighting, "combine", f"gives {name} of {what}, not of shape {wanted}")

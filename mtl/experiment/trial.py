"""A recipe is tried without data: its columns are looked up, and its network is built and run once."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mtl.build import Built, build, is_provisional
from mtl.console import counted, file_size
from mtl.contracts import broken, check_activation, check_sharing
from mtl.data.memory import require_memory
from mtl.data.types import Header
from mtl.dataset.assemble import Dataset, load_dataset
from mtl.dataset.header import checked_header
from mtl.errors import EnvironmentFault, UserError, quoted
from mtl.evaluation.links.contract import check_links
from mtl.model.stitched import Logits
from mtl.model.towers import Towers
from mtl.model.trunk import StitchedTowers
from mtl.recipe.base import Shape, Spec
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.specs import OptimizerSpec
from mtl.training import devices
from mtl.training.trainer import Trainer, require_room_for_gradients, shared_numbers

TRIED_IN_MEMORY = 1 << 23
"""A network with at most this many parameters is tried on the CPU; the meta device takes 1.4 s and 84 MB to start."""


def build_and_try(recipe: Recipe) -> tuple[Built, Header]:
    """Build the network of a recipe without data, and try one forward and backward pass.

    Returns:
        The network on the meta device, where it takes no memory, and the header of the sources.

    Raises:
        UserError: a column or a split is missing, shapes do not chain, heads do not fit, or no task reaches a
            parameter.
    """
    header = checked_header(recipe)
    with torch.device("meta"):
        built = tried = build(recipe, header)
    if sum(parameter.numel() for parameter in built.model.parameters()) <= TRIED_IN_MEMORY:
        with torch.device("cpu"):
            tried = build(recipe, header)
    _try(recipe, tried, header)
    return replace(built, kept_per_row=_kept_per_row(tried, header)), header


def preview(recipe: Recipe) -> tuple[Built, Header, tuple[str, ...]]:
    """As `build_and_try`, with the size that the network of a run has; the third result is notices on the data.

    Where rows decide that size, they are read, as a run reads them.

    Raises:
        UserError: as `build_and_try`, or the rows have a fault.
    """
    built, header = build_and_try(recipe)
    if not is_provisional(recipe, header):
        return built, header, ()
    built, dataset = with_rows(recipe, header)
    return built, dataset.header, dataset.notices


def with_rows(recipe: Recipe, header: Header) -> tuple[Built, Dataset]:
    """The network that a run has, on the meta device, and the rows as a run reads them.

    Raises:
        UserError: the rows have a fault.
    """
    dataset = load_dataset(recipe, header)
    with torch.device("meta"):
        built = build(recipe, dataset.header, dataset.learned).to(torch.device("meta"))
    return built, dataset


def require_room(recipe: Recipe, built: Built, device: torch.device) -> None:
    """Refuse a network, or a batch, that cannot be trained in the free memory of a device.

    Raises:
        EnvironmentFault: weights, gradients and the state of the optimizer need more bytes than are free, or do so
            together with the activations of a batch that the backward pass needs.
    """
    weights = sum(parameter.nbytes for parameter in built.model.parameters())
    with recipe.at("optimizer"):
        n_copies = 2 + _state_size(recipe.optimizer)
    what = f"the weights, their gradients and the state of {recipe.optimizer.kind}"
    free, n_rows = devices.free_memory(device), recipe.train.batch_size
    with recipe.at("model", "backbone"):
        require_memory(weights * n_copies, "", what, "make the layers smaller", free)
        if device.type != "cpu":  # the weights are drawn on the CPU
            require_memory(weights, "", "the weights", "make the layers smaller")
    with recipe.at("train", "batch_size"):
        kept = n_rows * built.kept_per_row // (2 if recipe.train.precision == "bfloat16" else 1)
        activations = f"{what}, and the activations of {counted(n_rows, 'row')}"
        require_memory(
            weights * n_copies + kept, "", activations, "lower it and raise train.accumulate", free
        )


def memory_fault(trainer: Trainer, error: BaseException) -> EnvironmentFault:
    """The fault of a step that lacks memory; it tells the most that this process has used."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 2**10)
    if trainer.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(trainer.device)
    batches = f"batches of {counted(trainer.recipe.train.batch_size, 'row')}"
    return EnvironmentFault(
        "",
        f"not enough memory at step {trainer.progress.step} with {batches} (peak {file_size(peak)})",
        "lower train.batch_size and raise train.accumulate; the last checkpoint stands",
    )


def _kept_per_row(tried: Built, header: Header) -> int:
    """Bytes that a forward pass keeps of each row: what four rows take more than two."""
    sizes = []
    for n_rows in (4, 2):
        kept: dict[int, int] = {}

        def keep(tensor: Tensor, kept: dict[int, int] = kept) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage.nbytes()  # an address, which `meta` does not have
            return tensor

        x = torch.zeros(n_rows, *header.input_shape, device=next(tried.model.parameters()).device)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            logits = tried.model(x)
        sizes.append(sum(kept.values()))
        del logits
    return max(0, sizes[0] - sizes[1]) // 2


def _state_size(optimizer: OptimizerSpec) -> int:
    """The numbers that an optimizer keeps for each weight, counted after one step on one weight."""
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.zeros(2)
    group = {"params": [weight], "names": ["weight"], "decay": True, "lr_scale": 1.0, "lr": optimizer.lr}
    built = optimizer.build([group])
    lacking = group.keys() - built.param_groups[0].keys()
    if lacking:
        what = f"gives an optimizer whose groups lack {quoted(min(lacking))}: hand on the groups as they are"
        raise broken(optimizer, "build", what)
    try:
        built.step()
    except TypeError as error:
        what = f"gives an optimizer whose step cannot be called without arguments: {quoted(str(error))}"
        raise broken(optimizer, "build", what) from None
    kept = [value for state in built.state.values() if isinstance(state, dict) for value in state.values()]
    return sum(isinstance(value, Tensor) and value.numel() == weight.numel() for value in kept)


def _try(recipe: Recipe, tried: Built, header: Header) -> None:
    """Make one forward and backward pass on the device of the network."""
    x = torch.zeros(2, *header.input_shape, device=next(tried.model.parameters()).device)
    tried.model.train()
    with recipe.at("model"):
        logits = _forward_checked(recipe, tried, x)
        torch.stack([output.sum() for output in logits.groups.values()]).sum().backward()
        grouped = [part for part in tried.model.trunk.modules() if isinstance(part, Towers)]
        of_towers = {id(parameter) for part in grouped for parameter in part.parameters()}
        for name, parameter in tried.model.named_parameters():
            if parameter.is_complex():
                raise UserError("", f"{name} is complex; keep two real numbers", path=("backbone",))
            if parameter.grad is None and parameter.requires_grad:
                path = (
                    "sharing" if name.startswith("trunk.") and id(parameter) not in of_towers else "backbone"
                )
                raise UserError("", f"{name} gets no gradient from any task", path=(path,))
    with recipe.at("model", "sharing"):
        check_sharing(recipe.model.sharing, tried.model.trunk)
        check_links(tried.model.trunk, recipe.towers)
    if recipe.weighting.needs == "gradients":
        with recipe.at("weighting"):
            shared = shared_numbers(recipe, tried.model)
            with shared.passing(), torch.no_grad():  # says how large the features are
                tried.model(x)
            require_room_for_gradients(recipe, shared, x.device)


def _forward_checked(recipe: Recipe, built: Built, x: Tensor) -> Logits:
    """Make the forward pass, and check that each stage, each unit and the trunk gives its announced shape."""
    model, doing = built.model, Doing()
    hooks = [hook for part in model.trunk.modules() for hook in _watched(recipe, part, doing, len(x))]
    try:
        h = model.trunk(model.inputs(x))
        doing.path, doing.what = "sharing", "the trunk"
        wanted = (len(x), model.trunk.n_readings, *model.trunk.shape)
        check_activation(recipe.model.sharing, doing.what, h, wanted, doing.path)
        doing.path, doing.what = "backbone", "the heads"
        return model.logits_of(h)
    except (RuntimeError, ValueError) as error:
        first_line = str(error).splitlines()[0]
        raise UserError("", f"shapes do not chain: {doing.what}: {first_line}", path=(doing.path,)) from error
    finally:
        for hook in hooks:
            hook.remove()


@dataclass
class Doing:
    """The current part of the forward pass: its key in `model`, to which an error points, and its name in words."""

    path: str = "backbone"
    what: str = "the input"


def _watched(recipe: Recipe, part: nn.Module, doing: Doing, n_rows: int) -> Iterator[RemovableHandle]:
    """Add hooks to the stages of towers and to the units between them, and yield their handles."""
    if isinstance(part, Towers):
        for name, stage in part.stages.items():
            wanted = (n_rows, len(part.names) * part.shapes[name][0], *part.shapes[name][1:])
            yield from _hooks(
                recipe.model.backbone, stage, "backbone", f"stage {quoted(name)}", wanted, doing
            )
    if isinstance(part, StitchedTowers):
        for name, unit in part.stitches.items():
            shape = part.towers.shapes[name]
            wanted = (n_rows, len(part.copies) * shape[0], *shape[1:])
            what = f"the unit after {quoted(name)}"
            yield from _hooks(recipe.model.sharing, unit, "sharing", what, wanted, doing)


def _hooks(
    maker: Spec, module: nn.Module, path: str, what: str, wanted: Shape, doing: Doing
) -> Iterator[RemovableHandle]:
    def begin(*_: object) -> None:
        doing.path, doing.what = path, what

    def end(_module: nn.Module, _given: object, h: Any) -> None:
        folded = (
            isinstance(h, Tensor) and h.ndim > 0 and len(h) > wanted[0]
        )  # attention folds tasks into rows
        check_activation(maker, what, h, (len(h), *wanted[1:]) if folded else wanted, path)

    yield module.register_forward_pre_hook(begin)
    yield module.register_forward_hook(end)

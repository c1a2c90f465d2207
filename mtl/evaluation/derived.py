"""The baseline of a task whose class follows from that of another: what the prediction of the other one alone reaches.

Shapes: B batch, T tasks of a group, C classes of the other task, O classes of the task itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from mtl.build import Built
from mtl.dataset.assemble import Dataset
from mtl.dataset.functions.derivation import Derivation
from mtl.evaluation.baseline import flat_network, headlines
from mtl.evaluation.meter import Values
from mtl.model.stitched import Logits, StitchedMultiTower
from mtl.recipe.keys.recipe import Recipe

DERIVED = "derived"


class Deriving(StitchedMultiTower):
    """A trained network in which some tasks take over what another task predicts.

    P(y = o) = sum_c P(other = c) shares[c, o]: the probabilities of the classes that stand for a class are added up.
    These tasks answer with the most probable class; the other tasks answer as the network does.

    Args:
        network: the trained network.
        beside: the same task groups, with a temperature and thresholds of their own.
        derived: task -> how its class follows from that of another task.
    """

    def __init__(
        self, network: StitchedMultiTower, beside: StitchedMultiTower, derived: Mapping[str, Derivation]
    ) -> None:
        super().__init__(beside.trunk, beside.modules_of_tasks())
        self.network, self.derived = network, dict(derived)
        for i, derivation in enumerate(self.derived.values()):
            self.register_buffer(f"shares_{i}", torch.tensor(derivation.shares, dtype=torch.float32))

    def forward(self, x: Tensor, present: Mapping[str, Tensor] | None = None) -> Logits:
        """Input (B, ...) -> logits of every task and of every task group; `present` as for the network."""
        given = self.network(x, present).groups
        groups = {name: logits_BTO.float().clone() for name, logits_BTO in given.items()}
        trained, own = self.network.modules_of_tasks(), self.modules_of_tasks()
        for i, (task, derivation) in enumerate(self.derived.items()):
            of, t = self.network.places[derivation.of]
            p_BC = trained[of].class_probabilities(given[of].float())[:, t]
            p_BO = p_BC @ self.get_buffer(f"shares_{i}")
            group, t = self.places[task]
            module = own[group]
            p_BTO = p_BO.unsqueeze(1).expand(-1, len(module.tasks), -1)
            groups[group][:, t] = module.logits_of(module.predicted_of(p_BTO))[:, t]
        return Logits(groups, self.places)


def derived_baselines(
    recipe: Recipe, built: Built, dataset: Dataset, split: str, between: Callable[[], None] = lambda: None
) -> Values:
    """`<split>/<task>/derived` -> the headline metric of each task that has a `derived_from`.

    Thresholds and temperatures are fitted on validation for tasks that ask for them, as for the network.

    Args:
        recipe: the checked recipe.
        built: the trained network, whose decisions were made.
        dataset: the rows.
        split: the split that is measured.
        between: called between batches; an exception of it ends this function.
    """
    if not dataset.derived:
        return {}
    beside = flat_network(recipe, built.groups, dataset, 0).model
    model = Deriving(built.model, beside, dataset.derived)
    deriving = Built(model, built.groups).to(dataset.rows.device)
    values = headlines(recipe, deriving, dataset, split, DERIVED, between)
    return {name: value for name, value in values.items() if name.split("/")[1] in dataset.derived}

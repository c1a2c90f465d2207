"""The network of a run with everything between a raw row and a prediction inside it.

Shapes: B batch, T tasks of a group, C classes or labels.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from mtl.build import Built


class Network(nn.Module):
    """Raw rows (B, ...) -> name of an output -> (B,) or (B, C).

    The first layer standardizes, fills missing numbers and looks up categories by their codes. The predictions are
    those of `TaskModule.predict`, so that temperatures and thresholds are inside too.

    Args:
        built: the trained network; it is copied.
        tasks: the tasks, in the order of the outputs.
    """

    def __init__(self, built: Built, tasks: Sequence[str]) -> None:
        super().__init__()
        self.model = copy.deepcopy(built.model).cpu().eval().requires_grad_(False)
        self.places = {task: (group.name, t) for group in built.groups for t, task in enumerate(group.tasks)}
        self.tasks = tuple(tasks)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """`<task>` is the answer: the number of a class, yes or no, or a value; `<task>_p` are probabilities."""
        modules = self.model.modules_of_tasks()
        logits = self.model(inputs).groups
        predicted: Mapping[str, dict[str, Tensor]] = {
            name: module.predict(logits[name].float()) for name, module in modules.items()
        }
        outputs = {}
        for task in self.tasks:
            group, t = self.places[task]
            answer = modules[group].answer
            for name, values in predicted[group].items():
                outputs[task if name == answer else f"{task}_{name}"] = values[:, t]
        return outputs

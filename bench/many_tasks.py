"""Time of a training step with 100 tasks, against the same network written by hand.

    python bench/many_tasks.py [--tasks 100] [--steps 200] [--towers per_task|one]

By hand: grouped batched matrix products, one batched loss over (B, T), its gradient, and one fused Adam step; no
metrics, no schedule, no check for NaN. Both are timed in turn in one process; the ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import itertools
from statistics import median
from time import perf_counter

import torch
from torch import nn

from mtl.build import build
from mtl.dataset.assemble import load_dataset
from mtl.evaluation.meter import Meter
from mtl.experiment.trial import build_and_try
from mtl.recipe.load import load_recipe
from mtl.training.step import train_step
from mtl.training.trainer import Trainer

FEATURES, WIDTH, BATCH, SITES = 128, 32, 128, 3


class ByHand(nn.Module):
    """K towers of three layers of 32 with batch norm, a K x K stitch after each, and a linear head per task."""

    def __init__(self, n_towers: int, n_tasks: int) -> None:
        super().__init__()
        widths = [FEATURES, WIDTH, WIDTH, WIDTH]
        self.n_towers, self.n_tasks = n_towers, n_tasks
        self.weights = nn.ParameterList(
            torch.randn(n_towers, i, o) / i**0.5 for i, o in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(n_towers * WIDTH) for _ in range(SITES))
        self.alphas = nn.ParameterList(torch.eye(n_towers) for _ in range(SITES if n_towers > 1 else 0))
        self.head = nn.Parameter(torch.randn(n_tasks, WIDTH) / WIDTH**0.5)
        self.bias = nn.Parameter(torch.zeros(n_tasks))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x.expand(self.n_towers, *x.shape)  # (K, B, F)
        for site, (weight, norm) in enumerate(zip(self.weights, self.norms, strict=True)):
            h = torch.bmm(h, weight)
            h = torch.relu(norm(h.transpose(0, 1).flatten(1))).unflatten(1, (self.n_towers, WIDTH))
            if self.n_towers > 1:
                h = torch.einsum("ij,bjf->bif", self.alphas[site], h)
            h = h.transpose(0, 1)
        if self.n_towers == 1:
            return h[0] @ self.head.T + self.bias
        return (h * self.head[:, None]).sum(-1).T + self.bias


def recipe_of(n_tasks: int, towers: str) -> object:
    stages = [{"name": f"fc{i}", "kind": "linear", "features": WIDTH} for i in range(SITES)]
    sharing = (
        {"kind": "cross_stitch", "after": [s["name"] for s in stages]}
        if towers != "one"
        else {"kind": "none"}
    )
    return load_recipe(
        {
            "schema_version": 1,
            "name": "many",
            "data": {"source": {"kind": "synthetic", "tasks": n_tasks, "rows": 20_000, "test_rows": 100,
                                "features": FEATURES, "latent": 1}},
            "tasks": {f"t{t}": {"kind": "binary", "target": f"task{t}", "missing": "mask"} for t in range(n_tasks)},
            "model": {"towers": towers, "backbone": {"kind": "layers", "stages": stages}, "sharing": sharing},
            "optimizer": {"kind": "adam", "lr": 1e-3},
            "train": {"epochs": 1, "batch_size": BATCH},
        }
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--towers", default="per_task", choices=("per_task", "one"))
    given = parser.parse_args()
    recipe = recipe_of(given.tasks, given.towers)
    _, header = build_and_try(recipe)
    dataset = load_dataset(recipe, header)
    trainer = Trainer.create(recipe, build(recipe, dataset.header, dataset.learned), dataset)
    meter = Meter(trainer.modules, recipe.tasks, trainer.device)
    trainer.built.model.train()
    n_towers = given.tasks if given.towers == "per_task" else 1
    hand = ByHand(n_towers, given.tasks).train()
    adam = torch.optim.Adam(hand.parameters(), lr=1e-3, fused=True)
    inputs, (target,) = dataset.rows.inputs, dataset.rows.target.values()
    batches = list(trainer.sampler.batches(0))
    times: dict[str, list[float]] = {"by hand": [], "mtl": []}
    for step in range(given.steps):
        part = batches[step % (len(batches) - 1)]
        began = perf_counter()
        index = torch.from_numpy(part)
        adam.zero_grad(set_to_none=True)
        loss_BT = nn.functional.binary_cross_entropy_with_logits(
            hand(inputs[index]), target[index].float(), reduction="none"
        )
        loss_BT.mean(0).sum().backward()
        adam.step()
        times["by hand"].append(perf_counter() - began)
        began = perf_counter()
        train_step(trainer, [part], meter)
        times["mtl"].append(perf_counter() - began)
    for name, values in times.items():
        values = sorted(values[10:])
        print(f"{name:8} median {1000 * median(values):.2f} ms, quartiles "
              f"{1000 * values[len(values) // 4]:.2f} to {1000 * values[3 * len(values) // 4]:.2f}")  # fmt: skip
    ratio = median(times["mtl"][10:]) / median(times["by hand"][10:])
    print(
        f"{given.tasks} tasks, towers {given.towers}, batch {BATCH}, "
        f"{torch.get_num_threads()} threads: ratio {ratio:.2f}"
    )


if __name__ == "__main__":
    main()

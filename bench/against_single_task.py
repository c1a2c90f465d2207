"""Each task of a recipe on a table, against a plain single-task PyTorch network on the rows that have its label.

    python bench/against_single_task.py my.yaml [--seeds 3]

The plain network has the layers of one tower, its own loss and the recipe's optimizer, schedule, batch size and epochs
and keeps the epoch with the lowest validation loss, as early stopping does. Both see the same rows of the
same split. Printed: mean and standard deviation over seeds of the headline metric on the test split, by torchmetrics.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import math
from statistics import mean, stdev
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torchmetrics.functional as tm
from torch import Tensor, nn
from torch.nn import functional as F

import mtl
from mtl.build import build
from mtl.dataset.assemble import Dataset, load_dataset
from mtl.dataset.header import header_of
from mtl.recipe.load import load_recipe


def loss_of(kind: str, z: Tensor, y: Tensor, scale: tuple[float, float]) -> Tensor:
    """The plain loss of one task."""
    if kind == "binary":
        return F.binary_cross_entropy_with_logits(z[:, 0], y.float())
    if kind == "multilabel":
        return F.binary_cross_entropy_with_logits(z, y.float())
    if kind == "regression":
        return F.mse_loss(z[:, 0], ((y - scale[0]) / scale[1]).float())
    if kind == "ordinal":  # cumulative logits: the first one, less positive steps
        return F.nll_loss(ordinal_p(z).clamp_min(1e-12).log(), y)
    return F.cross_entropy(z, y)


def ordinal_p(z: Tensor) -> Tensor:
    """(B, C - 1) -> (B, C): P(y > c) falls with c."""
    above = torch.cat([z[:, :1], z[:, :1] - F.softplus(z[:, 1:]).cumsum(1)], 1).sigmoid()
    one, none = torch.ones_like(above[:, :1]), torch.zeros_like(above[:, :1])
    return torch.cat([one, above], 1) - torch.cat([above, none], 1)


def score_of(metric: str, kind: str, z: Tensor, y: Tensor, scale: tuple[float, float]) -> float:
    """A headline metric by torchmetrics."""
    if kind == "regression":
        value = scale[0] + scale[1] * z[:, 0].double()
        return float(
            tm.r2_score(value, y.double()) if metric == "r2" else tm.mean_squared_error(value, y).sqrt()
        )
    if metric == "auroc":
        return float(tm.classification.binary_auroc(z[:, 0].sigmoid(), y))
    if metric == "macro_auroc":
        return float(tm.classification.multilabel_auroc(z.sigmoid(), y, num_labels=y.shape[1]))
    p = ordinal_p(z) if kind == "ordinal" else z.softmax(1)
    if metric == "quadratic_kappa":
        return float(
            tm.classification.multiclass_cohen_kappa(
                p.argmax(1), y, num_classes=p.shape[1], weights="quadratic"
            )
        )
    assert metric == "accuracy", metric
    return float((p.argmax(1) == y).double().mean())


def plain(
    recipe: mtl.Recipe, dataset: Dataset, x: Tensor, task: str, group: str, t: int, n_out: int, seed: int
) -> float:
    """Train one network for one task and give its headline metric on test."""
    torch.manual_seed(seed)
    spec, train, kind = recipe.tasks[task], recipe.train, recipe.tasks[task].kind
    labels = dataset.rows.targets(np.arange(len(x)))
    everything, there = labels.target[group][:, t], labels.present[group][:, t]
    rows = {}
    for split, own in dataset.splits.items():
        index = torch.from_numpy(own)
        rows[split] = index[there[index]]
    y = everything[rows["train"]].double()
    scale = (float(y.mean()), float(y.std(correction=0))) if kind == "regression" else (0.0, 1.0)
    widths = [x.shape[1], *(stage.features for stage in recipe.model.backbone.stages)]
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b, bias=False), nn.BatchNorm1d(b), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Dropout(recipe.model.head.dropout), nn.Linear(widths[-1], n_out))
    options = {"weight_decay": recipe.optimizer.weight_decay} if recipe.optimizer.kind == "adamw" else {}
    kinds = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
    optimizer = kinds[recipe.optimizer.kind](net.parameters(), lr=recipe.optimizer.lr, **options)
    share = len(rows["train"]) / len(dataset.splits["train"])
    batch = max(2, round(train.batch_size * share))
    per_epoch = math.ceil(len(rows["train"]) / batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: recipe.schedule.factor(step, per_epoch * train.epochs)
    )
    best, stale, kept = math.inf, 0, copy.deepcopy(net.state_dict())
    for _ in range(train.epochs):
        net.train()
        shuffled = rows["train"][torch.randperm(len(rows["train"]))]
        for part in shuffled.split(batch):
            if len(part) > 1:
                optimizer.zero_grad()
                loss_of(kind, net(x[part]), everything[part], scale).backward()
                optimizer.step()
            schedule.step()
        net.eval()
        with torch.no_grad():
            value = float(loss_of(kind, net(x[rows["validation"]]), everything[rows["validation"]], scale))
        if value < best:
            best, stale, kept = value, 0, copy.deepcopy(net.state_dict())
        else:
            stale += 1
            if train.early_stopping is not None and stale >= train.early_stopping.patience:
                break
    net.load_state_dict(kept)
    net.eval()
    with torch.no_grad():
        return score_of(spec.headline, kind, net(x[rows["test"]]), everything[rows["test"]], scale)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_intermixed_args()
    found: dict[str, dict[str, list[float]]] = {}
    for seed in range(given.seeds):
        own = {"init": seed, "order": seed, "split": 0, "labels": 0}
        seeds = [f"seed={{init: {seed}, order: {seed}, split: 0, labels: 0}}"]
        recipe = load_recipe(given.recipe, [*given.overrides, *seeds])
        with TemporaryDirectory() as folder:
            result = mtl.run(recipe, out=f"{folder}/run").metrics
        dataset = load_dataset(recipe, header_of(recipe))
        built = build(recipe, dataset.header, dataset.learned)
        with torch.no_grad():
            x = built.model.inputs(dataset.rows.inputs).float()
        for group in built.groups:
            for t, task in enumerate(group.tasks):
                name = f"{task} ({recipe.tasks[task].headline})"
                both = found.setdefault(name, {"mtl": [], "alone": []})
                both["mtl"].append(result[f"test/{task}/{recipe.tasks[task].headline}"])
                both["alone"].append(
                    plain(recipe, dataset, x, task, group.name, t, group.n_outputs, own["init"])
                )
    print(f"{'task':32} {'mtl':>16} {'alone':>16}   difference")
    for name, both in found.items():
        spread = {k: stdev(v) if len(v) > 1 else 0.0 for k, v in both.items()}
        shown = [f"{mean(v):.4f} ± {spread[k]:.4f}" for k, v in both.items()]
        print(f"{name:32} {shown[0]:>16} {shown[1]:>16}   {mean(both['mtl']) - mean(both['alone']):+.4f}")


if __name__ == "__main__":
    main()

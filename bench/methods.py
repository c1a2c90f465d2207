"""What each sharing scheme costs over hard sharing, and each weighting over the plain sum: time and memory of a step.

    python bench/methods.py [--tasks 2,8,32] [--rounds 30] [--images] [--json FILE]
    python bench/methods.py --limits
    python bench/methods.py --jacobian

The network has three stages 128-32-32-32 and batches of 128 rows; `--images` takes the towers of fashion_stitch and two
tasks instead. All networks of a table are timed in turn, a step each per round, so that a disturbance meets all alike.
A table has the median over rounds of the ratio to hard sharing (or to sum, on cross-stitched towers) in the same
round, the smallest ratio, and the ratio of the bytes that a step keeps: activations and gradients. `--json` adds the
ratios to those that a file holds already; docs/tools/costs.json is where the tables of the docs take them from.

`--limits` prints how long each weighting takes on one thread to combine the gradients of N tasks by 4,096 numbers,
without the backward passes, and the largest N at which that is below 50 ms. `--jacobian` prints what the gradients of
eight tasks take over one backward pass, with one tower and with eight.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch

from mtl.experiment.run import prepare
from mtl.recipe.load import load_recipe
from mtl.recipe.specs import WEIGHTINGS
from mtl.training.backward import Measured, losses, totals_of
from mtl.training.step import train_step
from mtl.training.trainer import Trainer

SITES = {"vectors": ["fc1", "fc2", "fc3"], "images": ["pool1", "pool2", "fc3"]}
WARMUP = 5


def schemes(body: str, n_tasks: int) -> dict[str, dict[str, Any]]:
    """Name of a sharing scheme -> the section `model` without the backbone; hard sharing comes first."""
    after, k = SITES[body], n_tasks
    return {
        "hard": {"towers": "one", "sharing": {"kind": "none"}},
        "none": {"sharing": {"kind": "none"}},
        "soft": {"sharing": {"kind": "soft"}},
        "cross_stitch": {"sharing": {"kind": "cross_stitch", "after": after}},
        "sluice": {"sharing": {"kind": "sluice", "after": after}},
        "nddr": {"sharing": {"kind": "nddr", "after": after}},
        "ltb": {"sharing": {"kind": "ltb", "after": after}},
        "mmoe": {"sharing": {"kind": "mmoe", "experts": max(k, 2)}},
        "dselect_k": {"sharing": {"kind": "dselect_k", "experts": 1 << max(k - 1, 1).bit_length(), "k": 2}},
        "cgc": {"sharing": {"kind": "cgc", "own": 1, "shared": 1}},
        "ple": {"sharing": {"kind": "ple", "after": after, "own": 1, "shared": 1}},
        "mtan": {"sharing": {"kind": "mtan", "after": after}},
        "film": {"sharing": {"kind": "film", "after": after}},
        "lora": {"sharing": {"kind": "lora", "rank": 4}},
    }


def trainer_of(body: str, n_tasks: int, model: Mapping[str, Any], weighting: Mapping[str, Any]) -> Trainer:
    """A trainer with one batch of rows."""
    if body == "images":
        changes = [f"model.{key}={json.dumps(value)}" for key, value in model.items()]
        recipe = load_recipe("fashion_stitch", [*changes, f"weighting={json.dumps(weighting)}"])
    else:
        stages = [{"name": name, "kind": "linear", "features": 32} for name in SITES["vectors"]]
        recipe = load_recipe(
            {
                "schema_version": 1,
                "name": "methods",
                "data": {"source": {"kind": "synthetic", "tasks": n_tasks, "rows": 2_000, "test_rows": 100,
                                    "features": 128, "latent": 1}},
                "tasks": {f"t{t}": {"kind": "binary", "target": f"task{t}"} for t in range(n_tasks)},
                "model": {"towers": "per_task", "backbone": {"kind": "layers", "stages": stages}, **model},
                "weighting": weighting,
                "optimizer": {"kind": "adam", "lr": 1e-3},
                "train": {"epochs": 1, "batch_size": 128},
            }
        )  # fmt: skip
    return prepare(recipe)[0]


def timed(trainers: Mapping[str, Trainer], rounds: int) -> dict[str, list[float]]:
    """Name -> seconds of a step in each round; every round takes a step of each in turn."""
    found: dict[str, list[float]] = {name: [] for name in trainers}
    meters = {name: trainer.new_meter() for name, trainer in trainers.items()}
    for i in range(rounds + WARMUP):
        for name, trainer in trainers.items():
            rows = trainer.dataset.splits["train"][:128].copy()
            trainer.built.model.train()
            began = perf_counter()
            train_step(trainer, [rows], meters[name])
            if i >= WARMUP:
                found[name].append(perf_counter() - began)
    return found


def held(trainer: Trainer) -> int:
    """The bytes that a step keeps: what is saved for the backward pass, the gradients, and those of each task alone."""
    rows, meter, saved = [trainer.dataset.splits["train"][:128].copy()], trainer.new_meter(), {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        train_step(trainer, rows, meter)
    gradients = sum(parameter.numel() for parameter in trainer.built.model.parameters())
    of_tasks = trainer.shared.n_shared * len(trainer.recipe.tasks) if trainer.shared is not None else 0
    return sum(saved.values()) + 4 * (gradients + of_tasks)


def table(title: str, trainers: Mapping[str, Trainer], rounds: int) -> dict[str, dict[str, float]]:
    """Print and return the ratios to the first of the trainers."""
    seconds, first = timed(trainers, rounds), next(iter(trainers))
    memory = {name: held(trainer) for name, trainer in trainers.items()}
    print(f"\n{title}; {first}: {1000 * median(seconds[first]):.2f} ms, {memory[first]:,} bytes\n")
    print("| | parameters | time | at best | memory |\n|---|---|---|---|---|")
    found = {}
    for name, trainer in trainers.items():
        ratios = [a / b for a, b in zip(seconds[name], seconds[first], strict=True)]
        size = sum(parameter.numel() for parameter in trainer.built.model.parameters())
        found[name] = {
            "time": median(ratios),
            "least": min(ratios),
            "memory": memory[name] / max(memory[first], 1),
        }
        own = found[name]
        print(f"| `{name}` | {size:,} | {own['time']:.2f} | {own['least']:.2f} | {own['memory']:.2f} |")
    return found


def limits() -> None:
    """Print for each weighting of gradients the milliseconds of a combination, for N tasks up to 1024."""
    numbers = [4 << i for i in range(9)]
    torch.set_num_threads(1)
    print("| | " + " | ".join(map(str, numbers)) + " | below 50 ms |\n|" + "---|" * (len(numbers) + 2))
    for kind in WEIGHTINGS.names():
        if WEIGHTINGS[kind].needs != "gradients":
            continue
        cells, most = [], 0
        for n in numbers:
            seconds = combination(kind, n)
            cells.append(f"{1000 * seconds:.1f}")
            most = n if seconds < 0.05 else most
            if seconds > 1:
                break
        print(
            f"| `{kind}` | " + " | ".join(cells + [""] * (len(numbers) - len(cells))) + f" | {most} |",
            flush=True,
        )


def combination(kind: str, n_tasks: int) -> float:
    """The fewest seconds of five combinations, after one that is not counted: what a busy machine disturbs least."""
    weighting = WEIGHTINGS[kind](kind=kind).build((1.0,) * n_tasks, (False,) * n_tasks)
    weighting.prepare(4096)
    shape = (n_tasks, 4096) if weighting.batches == 1 else (weighting.batches, n_tasks, 4096)
    losses_N, seen_N, found = torch.rand(n_tasks) + 0.5, torch.ones(n_tasks, dtype=torch.bool), []
    for i in range(6):
        jacobian = torch.randn(shape, generator=torch.Generator().manual_seed(i))
        began = perf_counter()
        weighting.combine(jacobian, losses_N, seen_N)
        found.append(perf_counter() - began)
        if found[-1] > 5:
            return found[-1]
    return min(found[1:])


def jacobian(rounds: int) -> None:
    """Print the time of the gradients of eight tasks by what they share over that of a plain backward pass."""
    torch.set_num_threads(1)
    for name, towers in (("hard", "one tower"), ("cross_stitch", "eight towers")):
        trainer = trainer_of("vectors", 8, schemes("vectors", 8)[name], {"kind": "upgrad"})
        batch = trainer.dataset.rows.batch(trainer.dataset.splits["train"][:128].copy())
        totals = totals_of(trainer, [batch])
        losses_N = losses(trainer, batch, totals, Measured(torch.zeros_like(totals.counted_N)))
        assert trainer.shared is not None
        parameters, seconds = list(trainer.built.model.parameters()), (list[float](), list[float]())
        for _ in range(rounds):
            began = perf_counter()
            torch.autograd.grad(losses_N.sum(), parameters, retain_graph=True, allow_unused=True)
            seconds[0].append(perf_counter() - began)
            began = perf_counter()
            trainer.shared.jacobian(losses_N.unbind())
            seconds[1].append(perf_counter() - began)
        ratios = [jacobian / plain for plain, jacobian in zip(*seconds, strict=True)]
        best = min(seconds[1]) / min(seconds[0])
        print(
            f"{towers}: {median(ratios):.2f} plain backward passes (median), {best:.2f} (fewest seconds of each)"
        )


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", default="2,8,32")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--images", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--limits", action="store_true")
    parser.add_argument("--jacobian", action="store_true")
    given = parser.parse_args()
    if given.limits:
        limits()
        return
    if given.jacobian:
        jacobian(given.rounds)
        return
    torch.use_deterministic_algorithms(True)
    body: str = "images" if given.images else "vectors"
    numbers: Sequence[int] = [2] if given.images else [int(n) for n in given.tasks.split(",")]
    everything: dict[str, Any] = {}
    for n in numbers:
        plain = {"kind": "sum"}
        of_sharing = {name: trainer_of(body, n, model, plain) for name, model in schemes(body, n).items()}
        what = "images" if given.images else f"{n} tasks"
        everything[f"sharing, {what}"] = table(f"sharing, {n} tasks, {body}", of_sharing, given.rounds)
        stitched = schemes(body, n)["cross_stitch"]
        kinds = ["sum", *(kind for kind in WEIGHTINGS.names() if kind != "sum")]
        of_weighting = {kind: trainer_of(body, n, stitched, {"kind": kind}) for kind in kinds}
        everything[f"weighting, {what}"] = table(f"weighting, {n} tasks, {body}", of_weighting, given.rounds)
    if given.json is not None:
        known = json.loads(given.json.read_text(encoding="utf-8")) if given.json.is_file() else {}
        rounded = {
            title: {k: {n: round(x, 2) for n, x in own.items()} for k, own in kinds.items()}
            for title, kinds in everything.items()
        }
        given.json.write_text(json.dumps(known | rounded, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

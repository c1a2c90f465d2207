"""What each sharing scheme costs over the same scheme written by hand: time of a step of the trunk, with its gradients.

    python -m bench.hand_grouped [--tasks 32] [--rounds 50] [--kinds soft,ple] [--json FILE]

The network is that of bench/methods.py: three stages 128-32-32-32 with batch norm and ReLU, batches of 128 rows, a
tower for each task. By hand means plain torch for this network alone, in which all towers or experts are one tensor.
Before anything is timed, both must give the same readings, and the same gradients of every weight.

A step is the forward pass to the readings, the penalty of the scheme, and the backward pass of a random cotangent. All
schemes are timed in turn on one thread, a step of the network and one by hand in each round, in changing order. The
time is CPU time, which leaves out what other processes take. The table has the median over rounds of the ratio in
the same round, the quartiles, and the smallest ratio. The exit code is 1 if a median is above 1.5.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median, quantiles

import torch

from bench.hand_grouped.pairs import Pair, batch, beside, require_same, timed, trunk_of
from bench.hand_grouped.schemes import SCHEMES

WARMUP, LIMIT = 5, 1.5

Times = Mapping[str, Sequence[tuple[float, float]]]
"""Scheme -> seconds of the network and by hand, in each round."""


def measured(pairs: Sequence[Pair], n_tasks: int, rounds: int) -> Times:
    """Take a step of each pair in every round."""
    x, cotangent = batch(n_tasks)
    found: dict[str, list[tuple[float, float]]] = {pair.kind: [] for pair in pairs}
    for i in range(WARMUP + rounds):
        for pair in pairs:
            times = timed(pair, x, cotangent, hand_first=i % 2 == 1)
            if i >= WARMUP:
                found[pair.kind].append(times)
    return found


def summary(times: Sequence[tuple[float, float]]) -> dict[str, float]:
    """The ratios of the rounds in numbers, and the fewest seconds of both."""
    ratios = [network / hand for network, hand in times]
    low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return {
        "network": min(network for network, _ in times),
        "by_hand": min(hand for _, hand in times),
        "ratio": median(ratios),
        "low": low,
        "high": high,
        "least": min(ratios),
    }


def main() -> None:
    """Print the table; exit with 1 if a scheme costs too much."""
    parser = argparse.ArgumentParser(prog="python -m bench.hand_grouped", description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--kinds", default=",".join(SCHEMES), help="the schemes to time; default: all")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    pairs = []
    for kind in given.kinds.split(","):
        trunk = trunk_of(kind, given.tasks)
        require_same(kind, trunk, given.tasks)
        pairs.append(beside(kind, trunk, given.tasks))
    found = {kind: summary(times) for kind, times in measured(pairs, given.tasks, given.rounds).items()}
    where = f"{platform.machine()}, torch {torch.__version__}, one thread"
    print(f"{given.tasks} tasks, {given.rounds} rounds, {where}; readings and gradients are equal\n")
    print("| | network, ms | by hand, ms | ratio | quartiles | at best |\n|---|---|---|---|---|---|")
    for kind, own in found.items():
        print(
            f"| `{kind}` | {1000 * own['network']:.2f} | {1000 * own['by_hand']:.2f} | {own['ratio']:.2f} "
            f"| {own['low']:.2f} to {own['high']:.2f} | {own['least']:.2f} |"
        )
    if given.json is not None:
        given.json.write_text(
            json.dumps({"tasks": given.tasks, "schemes": found}, indent=1) + "\n", encoding="utf-8"
        )
    if above := [kind for kind, own in found.items() if own["ratio"] > LIMIT]:
        print(f"\nabove {LIMIT} times the code by hand: {', '.join(above)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()

"""A table of customers with a known truth: 12 numeric and 3 categorical inputs, and 8 label columns of all kinds.

    python examples/make_customers.py customers.csv --rows 20000 --missing 0.4

All labels depend on four hidden traits of a customer, which the inputs show with noise; what can be predicted at best
is therefore known and printed. A share of the labels is left out at random, each label on its own.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

NUMERIC = [f"x{i:02d}" for i in range(12)]
CITIES = ["Athens", "Bergen", "Cork", "Dresden", "Evora", "Florence", "Ghent", "Haarlem"]
PLANS = ["basic", "family", "premium"]
DEVICES = ["desktop", "phone", "tablet", "tv"]
SEGMENTS = ["careful", "curious", "loyal", "thrifty"]
CHANNELS = ["email", "phone", "shop"]
SATISFACTION = ["low", "medium", "high"]
INTERESTS = ["art", "music", "sport", "travel"]
TARGETS = ["segment", "channel", "churned", "clicked", "satisfaction", "interests", "spend", "visits"]


def customers(rows: int, missing: float, seed: int) -> tuple[list[str], list[list[str]]]:
    """Header and rows as texts; an empty text is a missing label."""
    rng = np.random.default_rng(seed)
    traits = rng.standard_normal((rows, 4))
    mixing = np.random.default_rng(0).standard_normal((4, 12)) / 2
    numbers = traits @ mixing + 0.5 * rng.standard_normal((rows, 12))
    city = np.clip(
        np.digitize(traits[:, 0] + 0.7 * rng.standard_normal(rows), np.linspace(-1.5, 1.5, 7)), 0, 7
    )
    plan = np.digitize(traits[:, 1] + 0.7 * rng.standard_normal(rows), [-0.5, 0.7])
    device = rng.integers(0, 4, rows)

    def noisy(weights: list[float], noise: float) -> np.ndarray:
        return traits @ np.array(weights) + noise * rng.standard_normal(rows)

    scores = np.stack(
        [noisy(w, 0.4) for w in ([1, 1, 0, 0], [1, -1, 0, 0], [-1, 0, 1, 0], [-1, 0, -1, 0.5])], 1
    )
    segment = scores.argmax(1)
    channel = np.digitize(np.abs(noisy([0, 0, 1, 1], 0.3)), [0.6, 1.5])
    churned = noisy([1, 0.5, 0, -1], 0.6) > 1.2
    clicked = noisy([0, 1, 1, 0.5], 0.6) > 0
    satisfaction = np.digitize(noisy([0.8, 0, 0, 1], 0.5), [-0.8, 0.8])
    interests = np.stack([noisy(w, 0.5) > t for w, t in
                          (([1, 0, 0, 1], 0.5), ([0, 1, 0, 0], 0), ([0, 0, 1, 0], 0), ([1, 1, 1, 0], 1))],
                         axis=1)  # fmt: skip
    spend = np.exp(3 + 0.5 * noisy([1, 0.5, 0, 0], 0.3))
    visits = np.round(np.maximum(0, 20 + 6 * noisy([0, 0.5, 1, 0], 0.4))).astype(int)

    kept = rng.random((rows, len(TARGETS))) >= missing
    table = []
    for i in range(rows):
        labels = [
            SEGMENTS[segment[i]], CHANNELS[channel[i]], "yes" if churned[i] else "no", str(int(clicked[i])),
            SATISFACTION[satisfaction[i]],
            "|".join(n for n, there in zip(INTERESTS, interests[i], strict=True) if there) or "none",
            f"{spend[i]:.2f}", str(visits[i]),
        ]  # fmt: skip
        shown = [label if there else "" for label, there in zip(labels, kept[i], strict=True)]
        table.append(
            [
                f"c{i:06d}",
                *(f"{v:.4f}" for v in numbers[i]),
                CITIES[city[i]],
                PLANS[plan[i]],
                DEVICES[device[i]],
                *shown,
            ]
        )
    return ["customer_id", *NUMERIC, "city", "plan", "device", *TARGETS], table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--missing", type=float, default=0.4, help="share of labels left out")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    header, rows = customers(given.rows, given.missing, given.seed)
    with given.output.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    print(f"{given.output}: {len(rows)} rows, targets {','.join(TARGETS)}")


if __name__ == "__main__":
    main()

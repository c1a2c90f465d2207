"""A comparison folder that nobody trained: compare.json as `mtl compare` writes it, from drawn results."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

SEEDS = 5
SHARE = {"kind": "multiclass", "metric": "accuracy", "higher_is_better": True, "unit": "", "margin": 0.005}
ERROR = {"kind": "regression", "metric": "rmse", "higher_is_better": False, "unit": "CHF", "margin": None}
TASKS: dict[str, dict[str, Any]] = {
    "garment": {**SHARE, "weight": 1.0},
    "audience": {**SHARE, "weight": 1.0},
    "price": {**ERROR, "weight": 0.5},
}
ARMS: dict[str, tuple[str, str, list[str], tuple[float, float, float]]] = {
    "single": (
        "One network for each task.",
        "single",
        ["~model.sharing", "model.towers=per_task"],
        (0.905, 0.958, 7.9),
    ),
    "shared": (
        "One tower for all tasks.",
        "candidate",
        ["~model.sharing", "model.towers=one"],
        (0.893, 0.957, 8.0),
    ),
    "cross_stitch": ("Two towers with cross-stitch units.", "candidate", [], (0.915, 0.959, 7.4)),
    "shuffled": ("The labels of the other tasks are shuffled.", "control", [], (0.904, 0.957, 7.9)),
    "linear": ("A linear model of the inputs.", "reference", [], (0.842, 0.911, 11.2)),
}
"""Arm -> what it is, its role, its changes, and its mean result in each task."""
SPREAD = {"garment": 0.003, "audience": 0.002, "price": 0.2}
SAID = {
    "better": "is better than single by",
    "worse": "is worse than single by",
    "equivalent": "is equivalent to single; they differ by",
    "cannot tell": "may be better or worse than single; they differ by",
}
SENTENCES = {
    "garment": ("better", "Sharing helps garment: cross_stitch is right in 1.0 more of 100 rows."),
    "audience": ("equivalent", "Sharing changes nothing for audience: every arm is within 0.005."),
    "price": ("better", "Sharing helps price: its error falls by 0.5 CHF."),
}
TRANSFER = {
    "garment": (
        True,
        0.008,
        "garment gains 0.008 from the labels of the other tasks; shuffled labels give nothing.",
    ),
    "price": (False, None, "Whether price gains from the other labels cannot be told with 5 seeds."),
}
DELTA_M = "Over all tasks cross_stitch is 2.1% better than single (mean relative gain of scores)."
VERDICTS = {
    ("shared", "garment"): "worse", ("shared", "audience"): "equivalent", ("shared", "price"): "cannot tell",
    ("cross_stitch", "garment"): "better", ("cross_stitch", "audience"): "equivalent",
    ("cross_stitch", "price"): "better",
    ("shuffled", "garment"): "cannot tell", ("shuffled", "audience"): "equivalent",
    ("shuffled", "price"): "cannot tell",
}  # fmt: skip


def compare_values(seeds: int = SEEDS, **changes: Any) -> dict[str, Any]:
    """The content of compare.json, with some keys changed."""
    draws = np.random.default_rng(0)
    arms, comparisons = {}, []
    for arm, (what, role, overrides, results) in ARMS.items():
        values = {
            task: [
                round(float(x), 5) for x in draws.normal(mean, SPREAD[task] * (role != "reference"), seeds)
            ]
            for task, mean in zip(TASKS, results, strict=True)
        }
        arms[arm] = {
            "what": what,
            "role": role,
            "parameters": None if role == "reference" else 1_200_000 + 1000 * len(arm),
            "models": len(results) if role == "single" else 1,
            "changes": overrides,
            "results": {
                task: {
                    "values": own,
                    "mean": fmean(own),
                    "sd": stdev(own),
                    "validation": own,
                    "one_model": own,
                }
                for task, own in values.items()
            },
            "collapsed": [{"task": "price", "seed": 3}] if arm == "shared" else [],
        }
    for (arm, task), verdict in VERDICTS.items():
        mine, other = (arms[name]["results"][task] for name in (arm, "single"))
        difference, sd = mine["mean"] - other["mean"], max(mine["sd"], 1e-4)
        comparisons.append(
            {
                "arm": arm, "against": "single", "task": task, "difference": difference,
                "interval": [difference - 2.4 * sd, difference + 2.4 * sd],
                "interval_seeds": [difference - 1.7 * sd, difference + 1.7 * sd],
                "p": 0.012, "p_adjusted": 0.036, "verdict": verdict,
                "words": f"{task}: {arm} {SAID[verdict]} {abs(difference):.4f}.",
                "sd": sd, "se_rows": sd / 2, "correlation": 0.4, "seeds_needed": [5, 9], "n_seeds": seeds,
            }
        )  # fmt: skip
    values = {
        "schema_version": 1,
        "recipe": {"name": "fashion_stitch", "description": "Garments and prices.", "sha256": "ab" * 32},
        "data": {
            "sha256": "cd" * 32, "generated": False, "rows": {"train": 54000, "validation": 6000, "test": 10000},
            "labels": {"price": {"train": 5400, "validation": 600, "test": 1000}},
        },
        "pinned": ["data", "split", "labels"],
        "varied": ["initial weights", "order", "dropout"],
        "selection": "best step of each task by validation",
        "seeds": list(range(seeds)),
        "looks": 1,
        "exploratory": False,
        "tasks": TASKS,
        "arms": arms,
        "baseline": dict.fromkeys(TASKS, "single"),
        "comparisons": comparisons,
        "tasks_verdict": {
            task: {"arm": "cross_stitch", "verdict": verdict, "sentence": sentence}
            for task, (verdict, sentence) in SENTENCES.items()
        },
        "transfer": {
            task: {"claimed": claimed, "size": size, "sentence": sentence}
            for task, (claimed, size, sentence) in TRANSFER.items()
        },
        "delta_m": {"cross_stitch": {"by_score": 0.021, "by_error": 0.034, "sentence": DELTA_M}},
        "leading": {"arm": "cross_stitch", "confirmed": True, "sentence": "cross_stitch leads; fresh seeds agree."},
        "label_curve": [
            {
                "task": "garment", "fraction": fraction, "labels": int(54000 * fraction), "arm": arm,
                "values": [0.7 + 0.07 * float(np.log10(540 * fraction + 1)) + lift + 0.004 * k for k in range(3)],
            }
            for arm, lift in (("single", 0.0), ("cross_stitch", 0.015))
            for fraction in (0.01, 0.03, 0.1, 0.3, 1.0)
        ],
        "summary": ["Sharing helps 2 of 3 tasks, garment and price, and harms none: use cross_stitch."],
    }  # fmt: skip
    return {**values, **changes}


def make_comparison(path: Path, runs: bool = True, **changes: Any) -> Path:
    """Write a comparison folder, with run folders that hold no more than their names."""
    values = compare_values(**changes)
    path.mkdir(parents=True, exist_ok=True)
    (path / "compare.json").write_text(json.dumps(values), encoding="utf-8")
    seconds = {arm: {"seconds": [61.0 + k for k in range(len(values["seeds"]))]} for arm in values["arms"]}
    (path / "timings.json").write_text(json.dumps(seconds), encoding="utf-8")
    for arm in values["arms"] if runs else ():
        for seed in values["seeds"]:
            run = path / "runs" / arm / str(seed)
            run.mkdir(parents=True)
            (run / "run.json").write_text("{}", encoding="utf-8")
    return path

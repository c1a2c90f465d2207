"""The judge of a comparison: plain results in, verdicts and sentences out, as compare.json has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtl.comparison.statistics.arms import Arm, Bench, Comparison, Pairs, Task
from mtl.comparison.statistics.delta_m import DeltaM, delta_m
from mtl.comparison.statistics.leading import Rounds, compare_all, control_of, fresh_bench, transfers
from mtl.comparison.statistics.verdicts import (
    AHEAD,
    BETTER,
    CANNOT_TELL,
    EQUIVALENT,
    IDENTICAL,
    SUPERIOR,
    WORSE,
)
from mtl.comparison.statistics.words import gain

SCOPE = "The intervals cover other seeds{rows}. They do not cover other training rows."
ROWS, NO_ROWS = " and new test rows like these", ", on these test rows"
SPLITS = "The intervals cover other seeds and, approximately, other splits of rows like these (Nadeau and Bengio 2003)."
EXPLORATORY = (
    "Exploratory: seeds were added after a look ({looks} looks), past any maximum that was set before."
)
INTERIM = "Interim: {n} of the {maximum} seeds that were set before; only all of them decide."
HELPS = {
    BETTER: "helps {}",
    AHEAD: "is ahead on {}, not yet confirmed",
    WORSE: "hurts {}",
    EQUIVALENT: "makes no difference that matters to {}",
    IDENTICAL: "changes nothing in {}",
    CANNOT_TELL: "is not shown to help or to hurt {}",
}
"""Verdict -> what the leading arm does to its tasks."""
IS = {
    BETTER: "is better on {}",
    AHEAD: "is ahead on {}, not yet confirmed",
    WORSE: "is worse on {}",
    EQUIVALENT: "is equivalent on {}",
    IDENTICAL: "is identical on {}",
    CANNOT_TELL: "cannot be told apart on {}",
}
"""Verdict -> what any other arm is, against what it is compared with."""


def judge(
    tasks: Mapping[str, Task],
    arms: Mapping[str, Arm],
    baseline: Mapping[str, str],
    seeds: Sequence[int],
    *,
    n_units: int | Mapping[str, int] | None = None,
    resampled: tuple[int, int] | None = None,
    confirmed: Mapping[str, Arm] | None = None,
    confirmed_seeds: Sequence[int] = (),
    looks: int = 1,
    maximum: int | None = None,
) -> dict[str, Any]:
    """All that a comparison claims, as the parts of compare.json.

    Each candidate is compared with the baseline and with its control, each control and reference with the baseline.
    Verdicts are corrected over tasks, and those of candidates against the baseline or a control also for the number of
    candidates. Of several candidates the best one leads; one that looks better is `ahead`. The leading one is called
    `better` only by the fresh seeds of `confirmed`, and then by these alone.

    Args:
        tasks: task -> metric, direction, margin, weight.
        arms: arm -> role and results.
        baseline: task -> the arm that stands for no sharing.
        seeds: the seeds of the values.
        n_units: test rows (or groups) that were resampled, of all tasks or per task.
        resampled: (n_train, n_test) if the split was drawn anew for each seed.
        confirmed: the leading candidate, the baselines, and its control if it was run again, on fresh seeds.
        confirmed_seeds: those seeds.
        looks: how often results were looked at, this time included.
        maximum: the number of seeds that was set before the first look; None if none was.

    Returns:
        `comparisons`, `tasks_verdict`, `transfer`, `delta_m`, `leading`, `summary`, `exploratory`, and `collapsed`
        (arm -> list of task and seed).

    Raises:
        ValueError: a baseline is no arm, a seed of the confirmation is not fresh, or it has not one candidate.
    """
    if not set(baseline.values()) <= set(arms):
        raise ValueError(f"baselines are arms: {sorted(set(baseline.values()) - set(arms))}")
    bench = Bench(tasks, arms, Pairs(tuple(seeds), n_units, resampled))
    fresh = fresh_bench(bench, confirmed, confirmed_seeds)
    rounds = compare_all(bench, fresh, baseline)
    exploratory = looks > 1 and (maximum is None or len(seeds) > maximum)
    numbers = {name: _delta_m(bench, name, baseline) for name in rounds.to_baseline}
    parts = _parts(bench, rounds, numbers) | {"exploratory": exploratory}
    when = [EXPLORATORY.format(looks=looks)] if exploratory else []
    if not exploratory and maximum is not None and len(seeds) < maximum:
        when = [INTERIM.format(n=len(seeds), maximum=maximum)]
    return parts | {"summary": _summary(parts, rounds, numbers, bench, when)}


def _parts(bench: Bench, rounds: Rounds, numbers: Mapping[str, DeltaM]) -> dict[str, Any]:
    """The parts of compare.json that need no more than the comparisons."""
    n = len(rounds.to_baseline)
    leads = rounds.lead is not None and (n > 1 or rounds.is_confirmed)
    return {
        "comparisons": [c.plain() for c in rounds.all],
        "tasks_verdict": {
            name: {"arm": c.arm, "verdict": c.verdict.verdict, "sentence": c.words}
            for name, c in rounds.chosen.items()
        },
        "transfer": _transfer(bench, rounds),
        "delta_m": _plain_delta_m(numbers),
        "leading": _leading(str(rounds.lead), n, rounds) if leads else None,
        "collapsed": _collapsed(bench),
    }


def _transfer(bench: Bench, rounds: Rounds) -> dict[str, dict[str, Any]]:
    """Task -> whether the leading arm gains from the labels of the other tasks."""
    lead = rounds.lead
    if lead is None:
        return {}
    control = control_of(bench, lead)
    sterile = rounds.others.get(control, {}) if control is not None else {}
    found = transfers(
        lead,
        control,
        {name: c.verdict for name, c in rounds.chosen.items()},
        {name: c.verdict for name, c in rounds.to_control[lead].items()},
        {name: c.verdict for name, c in sterile.items()},
        {name: task.measure for name, task in bench.tasks.items()},
        rounds.is_final,
    )
    return {n: {"claimed": t.claimed, "size": t.size, "sentence": t.sentence} for n, t in found.items()}


def _leading(lead: str, n: int, rounds: Rounds) -> dict[str, Any]:
    """The best of several arms."""
    gains = [name for name, c in rounds.chosen.items() if c.verdict.verdict in SUPERIOR]
    on = f" on {_listed(gains)}" if gains else ""
    if rounds.is_confirmed:
        first = f"{lead} was the best of {n} candidate arms" if n > 1 else f"{lead} was run again"
        said = f"is better{on}" if gains else "is not shown to be better on any task"
        text = f"{first}; on fresh seeds alone it {said}"
    elif gains:
        text = (
            f"{lead} leads {n} candidate arms{on}, corrected for their number; the best of many looks better than it "
            f"is, so that fresh seeds have to confirm it: the same command with --confirm"
        )
    else:
        text = f"{lead} leads {n} candidate arms, but no more than the best of {n} equal arms would"
    return {"arm": lead, "confirmed": rounds.is_confirmed, "sentence": text}


def _delta_m(bench: Bench, arm: str, baseline: Mapping[str, str]) -> DeltaM:
    """delta_m of a candidate against the baseline of each task."""
    tasks = [name for name in bench.tasks if name in baseline]
    return delta_m(
        {name: bench.arms[arm].values.get(name, ()) for name in tasks},
        {name: bench.arms[baseline[name]].values.get(name, ()) for name in tasks},
        {name: (bench.tasks[name].metric, bench.tasks[name].higher_is_better) for name in tasks},
        {name: bench.tasks[name].weight for name in tasks},
    )


def _plain_delta_m(numbers: Mapping[str, DeltaM]) -> dict[str, Any] | None:
    """Arm -> delta_m and its sentence, which says why it is refused; None without arms."""
    return {
        arm: {"by_score": m.by_score, "by_error": m.by_error, "sentence": m.sentence(arm)}
        for arm, m in numbers.items()
    } or None


def _collapsed(bench: Bench) -> dict[str, list[dict[str, Any]]]:
    """Arm -> the runs that collapsed."""
    found: dict[str, list[dict[str, Any]]] = {}
    for task, of_arms in bench.collapses.items():
        for arm, seeds in of_arms.items():
            found.setdefault(arm, []).extend({"task": task, "seed": seed} for seed in seeds)
    return found


def _summary(
    parts: Mapping[str, Any], rounds: Rounds, numbers: Mapping[str, DeltaM], bench: Bench, when: list[str]
) -> list[str]:
    """What a reader takes home, sentence by sentence; the first one is the answer."""
    lead = rounds.lead
    said = _by_verdict(bench, rounds.chosen, HELPS, (AHEAD,))
    what = "" if lead is None else bench.arms[lead].what or lead
    lines = [
        f"{what} {'; it '.join(said)}." if said else "No arm shares, so that there is no verdict.",
        *when,
    ]
    if parts["leading"] is not None:
        lines.append(f"{parts['leading']['sentence']}.")
    lines += [f"{each['sentence']}." for each in parts["tasks_verdict"].values()]
    lines += [f"{each['sentence']}." for each in parts["transfer"].values() if each["claimed"]]
    lines += _of_others(bench, rounds)
    if lead is not None and numbers[lead].reason is None:
        lines.append(f"{numbers[lead].sentence(lead)}.")
    for arm, runs in parts["collapsed"].items():
        runs_named = _listed([f"seed {run['seed']} ({run['task']})" for run in runs])
        lines.append(f"{arm} collapsed on {runs_named}.")
    rows = any(c["se_rows"] is not None for c in parts["comparisons"])
    lines.append(SPLITS if bench.pairs.resampled else SCOPE.format(rows=ROWS if rows else NO_ROWS))
    return lines


def _by_verdict(
    bench: Bench, compared: Mapping[str, Comparison], said: Mapping[str, str], sized: Sequence[str]
) -> list[str]:
    """What is said of the tasks with each verdict; those with a verdict in `sized` come with their difference."""
    tasks: dict[str, list[str]] = {}
    for name, c in compared.items():
        verdict = c.verdict.verdict
        size = f" ({gain(bench.tasks[name].measure, c.verdict.difference)})" if verdict in sized else ""
        tasks.setdefault(verdict, []).append(f"{name}{size}")
    return [text.format(_listed(tasks[verdict])) for verdict, text in said.items() if verdict in tasks]


def _of_others(bench: Bench, rounds: Rounds) -> list[str]:
    """A sentence for each further arm that is no control: how it compares with the baseline."""
    others = {arm: own for arm, own in rounds.to_baseline.items() if arm != rounds.lead}
    others |= {arm: own for arm, own in rounds.others.items() if bench.arms[arm].role == "reference"}
    lines = []
    for arm, own in others.items():
        against = _listed(list(dict.fromkeys(c.against for c in own.values())))
        said = _by_verdict(bench, own, IS, (*SUPERIOR, WORSE))
        if said:
            lines.append(f"Against {against}, {arm} {'; it '.join(said)}.")
    return lines


def _listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)

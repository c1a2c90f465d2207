"""The best of several arms, its confirmation, and whether what helps is the other tasks' labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mtl.comparison.statistics.arms import Arm, Bench, Comparison, Pairs
from mtl.comparison.statistics.correction import corrected
from mtl.comparison.statistics.power import ALPHA
from mtl.comparison.statistics.verdicts import SUPERIOR, WORSE, Verdict
from mtl.comparison.statistics.words import Measure


@dataclass(frozen=True)
class Transfer:
    """Whether a task gains from the labels of the others.

    Args:
        claimed: whether the sharing arm beats both the single arm and the sterile arm.
        size: the smaller of the two gains, in the metric's unit; None unless claimed.
        sentence: the same in words.
    """

    claimed: bool
    size: float | None
    sentence: str


def leading_arm(
    differences: Mapping[str, Mapping[str, float | None]],
    spreads: Mapping[str, float],
    weights: Mapping[str, float],
) -> str | None:
    """The candidate with the largest mean difference over tasks, in units of each task's spread over seeds.

        score(arm) = sum_t w_t d_t(arm) / spread_t / sum_t w_t

    It orders the arms and decides nothing. Of equal arms the first leads; an arm without results on a task counts as
    equal to the baseline there.

    Args:
        differences: arm -> task -> the oriented mean difference to the baseline.
        spreads: task -> the pooled standard deviation within arms; a task without spread does not count.
        weights: task -> weight.
    """
    if not differences:
        return None
    counted = [task for task, spread in spreads.items() if spread > 0]

    def score(arm: str) -> float:
        return sum(weights[task] * (differences[arm].get(task) or 0.0) / spreads[task] for task in counted)

    return max(differences, key=score)


def transfers(
    arm: str,
    sterile: str | None,
    to_single: Mapping[str, Verdict],
    to_sterile: Mapping[str, Verdict],
    sterile_to_single: Mapping[str, Verdict],
    measures: Mapping[str, Measure],
    confirmed: bool = True,
) -> dict[str, Transfer]:
    """Whether each task gains from the other tasks' labels: the arm must beat the single and the sterile arm.

    The sterile arm is the same network with the other tasks' labels permuted, so that what it gains is not transfer.
    "Beats both" is one claim, whose p-value is the larger of the two (an intersection-union test, Berger 1982),
    corrected over tasks.

    Args:
        arm: the sharing arm.
        sterile: its sterile arm; None if there is none, and no transfer is claimed.
        to_single: task -> the verdict of the arm against the single arm.
        to_sterile: task -> that against the sterile arm.
        sterile_to_single: task -> the verdict of the sterile arm against the single arm.
        measures: task -> how the metric is written.
        confirmed: whether the arm was the only candidate, or was confirmed on fresh seeds.
    """
    tasks = [task for task in to_single if task in to_sterile]
    n_arms = max([v.n_arms for v in (*to_single.values(), *to_sterile.values())], default=1)
    p = corrected([max(_p(to_single[t]), _p(to_sterile[t])) for t in tasks], n_arms)
    adjusted = dict(zip(tasks, p, strict=True))
    found = {}
    for task, single in to_single.items():
        if sterile is None or task not in adjusted:
            text = f"{task}: no transfer is claimed without a sterile arm (the other tasks' labels permuted)"
            found[task] = Transfer(False, None, text)
            continue
        both = all(v.verdict in SUPERIOR for v in (single, to_sterile[task])) and adjusted[task] <= ALPHA
        found[task] = _told(
            (task, arm, sterile),
            (single, to_sterile[task]),
            sterile_to_single.get(task),
            measures[task],
            both,
            confirmed,
        )
    return found


def _told(
    names: tuple[str, str, str],
    verdicts: tuple[Verdict, Verdict],
    sterile_to_single: Verdict | None,
    measure: Measure,
    both: bool,
    confirmed: bool,
) -> Transfer:
    """The transfer of one task in words."""
    (task, arm, sterile), (single, control) = names, verdicts
    gains = [v.difference.difference for v in verdicts]
    noise = _noise(sterile, sterile_to_single, measure)
    known = [gain for gain in gains if gain is not None]
    if both and confirmed:
        size = min(known)
        shown = measure.amount(size, measure.decimals(size))
        of = f"{task}: the other tasks' labels help {arm} by {shown}, the smaller of its gains"
        return Transfer(True, size, f"{of} over the single and the sterile arm{noise}")
    if both:
        return Transfer(
            False, None, f"{task}: {arm} is ahead of both arms; fresh seeds have to confirm it{noise}"
        )
    arms = (("the single arm", single), ("the sterile arm", control))
    missing = [name for name, v in arms if v.verdict not in SUPERIOR]
    reason = f"is not shown to be better than {' and '.join(missing)}"
    if not missing:
        reason = "beats each of both arms, but not both at once after the correction for tasks"
    return Transfer(False, None, f"{task}: no transfer is claimed: {arm} {reason}{noise}")


def _noise(sterile: str, verdict: Verdict | None, measure: Measure) -> str:
    """What permuted labels do to the task."""
    d = None if verdict is None else verdict.difference.difference
    if verdict is None or d is None or d >= 0:
        return ""
    lost = measure.amount(-d, measure.decimals(d))
    if verdict.verdict == WORSE:
        return f"; noise labels hurt: {sterile} is below the single arm by {lost}"
    return f"; noise labels hurt, or it is chance: {sterile} is below the single arm by {lost}"


def _p(verdict: Verdict) -> float:
    """The p-value before correction; 1 where no verdict was possible."""
    p = verdict.difference.p
    return 1.0 if p is None or verdict.collapsed else p


@dataclass(frozen=True)
class Rounds:
    """All comparisons: those of the leading arm are on fresh seeds, where it was confirmed.

    Args:
        to_baseline: candidate -> task -> its comparison with the baseline.
        to_control: candidate -> task -> its comparison with its sterile arm.
        others: control or reference -> task -> its comparison with the baseline.
        lead: the leading candidate; None without candidates.
        is_final: whether it was the only candidate, or was confirmed.
        is_confirmed: whether it was confirmed.
    """

    to_baseline: dict[str, dict[str, Comparison]]
    to_control: dict[str, dict[str, Comparison]]
    others: dict[str, dict[str, Comparison]]
    lead: str | None
    is_final: bool
    is_confirmed: bool

    @property
    def chosen(self) -> dict[str, Comparison]:
        """Task -> the comparison of the leading arm with the baseline."""
        return {} if self.lead is None else self.to_baseline[self.lead]

    @property
    def all(self) -> list[Comparison]:
        """Candidates against the baseline, candidates against controls, the others against the baseline."""
        return [
            c
            for of in (self.to_baseline, self.to_control, self.others)
            for arm in of.values()
            for c in arm.values()
        ]


def compare_all(bench: Bench, fresh: Bench | None, baseline: Mapping[str, str]) -> Rounds:
    """Compare every arm with what it is to be compared with."""
    roles = {name: arm.role for name, arm in bench.arms.items()}
    candidates = [name for name, role in roles.items() if role == "candidate"]
    n = len(candidates)
    to_baseline = {name: bench.compared(name, baseline, n) for name in candidates}
    lead = _lead(bench, to_baseline, fresh)
    if fresh is not None and lead is not None:
        to_baseline[lead] = fresh.compared(lead, baseline)
    return Rounds(
        to_baseline,
        {name: _to_control(bench, fresh if name == lead else None, name, n) for name in candidates},
        {
            name: bench.compared(name, baseline)
            for name, role in roles.items()
            if role in ("control", "reference")
        },
        lead,
        n == 1 or fresh is not None,
        fresh is not None,
    )


def fresh_bench(bench: Bench, confirmed: Mapping[str, Arm] | None, seeds: Sequence[int]) -> Bench | None:
    """The arms on fresh seeds; None before a confirmation.

    Raises:
        ValueError: a seed is not fresh, or the arms have not one candidate of the comparison.
    """
    if confirmed is None:
        return None
    if set(seeds) & set(bench.pairs.seeds) or not seeds:
        raise ValueError(f"a confirmation needs seeds that were not looked at: {sorted(seeds)}")
    leads = [name for name, arm in confirmed.items() if arm.role == "candidate" and name in bench.arms]
    if len(leads) != 1:
        raise ValueError(f"a confirmation has one candidate of the comparison, not {leads}")
    return Bench(
        bench.tasks, confirmed, Pairs(tuple(seeds), bench.pairs.n_units, bench.pairs.resampled), True
    )


def _lead(
    bench: Bench, to_baseline: Mapping[str, Mapping[str, Comparison]], fresh: Bench | None
) -> str | None:
    """The candidate that was confirmed, or else the best one."""
    if fresh is not None:
        return next(
            name for name, arm in fresh.arms.items() if arm.role == "candidate" and name in bench.arms
        )
    gains = {
        arm: {name: c.verdict.difference.difference for name, c in each.items()}
        for arm, each in to_baseline.items()
    }
    return leading_arm(gains, bench.spreads(), {name: task.weight for name, task in bench.tasks.items()})


def control_of(bench: Bench, arm: str) -> str | None:
    """The sterile arm of a candidate: the named one, or the only one."""
    controls = [name for name, each in bench.arms.items() if each.role == "control"]
    own = bench.arms[arm].control
    return own if own is not None else controls[0] if len(controls) == 1 else None


def _to_control(bench: Bench, fresh: Bench | None, arm: str, n_arms: int) -> dict[str, Comparison]:
    """A candidate against its sterile arm, on fresh seeds where both were run again."""
    control = control_of(bench, arm)
    if control is None:
        return {}
    against = dict.fromkeys(bench.tasks, control)
    if fresh is not None and control in fresh.arms:
        return fresh.compared(arm, against)
    return bench.compared(arm, against, n_arms)

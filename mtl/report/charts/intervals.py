"""Dots with intervals on a line: a result beside its baselines, and differences of arms against a baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mtl.report.charts.marks import Figure, Scale, cut, range_of, shown, tick_text

Interval = tuple[float, float]
FARTHEST = 1.5
"""How far a margin is drawn at most, as a multiple of the farthest end, so that it leaves room for the differences."""
LABELS = 140.0
"""Pixels on the left for the names of arms and their verdicts, so that nothing is drawn through them."""
MOST_LETTERS = 44
"""Most letters of the line below an axis."""


@dataclass(frozen=True)
class Difference:
    """One comparison of an arm; + is better.

    Args:
        arm: its name.
        interval: over rows and seeds together.
        interval_seeds: over seeds alone.
        against: what it is compared with, if that is not the baseline.
    """

    arm: str
    difference: float
    interval: Interval | None
    interval_seeds: Interval | None
    verdict: str
    against: str = ""

    @property
    def name(self) -> str:
        """The arm, and what it is compared with if that is not the baseline."""
        return f"{self.arm}, against {self.against}" if self.against else self.arm


def strip(
    domain: Interval,
    value: float,
    interval: Interval | None,
    baselines: Sequence[tuple[str, float]],
    best: float | None,
) -> Figure:
    """A result on a line with its interval, and a mark for each baseline."""
    said = "".join(f", {name} {shown(found)}" for name, found in baselines)
    figure = Figure(f"test result {shown(value)}{said}", width=240, height=32)
    x = Scale(*domain, 8, 232)
    figure.add("line", css="axis", x1=x.start, x2=x.end, y1=12, y2=12)
    ticks = [domain[0], domain[1]]
    decimals = [tick_text(end, [*ticks, (ticks[0] + ticks[1]) / 2]) for end in ticks]
    figure.text(x.start, 30, decimals[0], "tick", "start")
    figure.text(x.end, 30, decimals[1], "tick", "end")
    if interval is not None:
        low, high = (x.clipped(end) for end in interval)
        figure.add("line", css="interval", x1=low, x2=high, y1=12, y2=12)
        for end in (low, high):  # they show beside the dot, also where the interval is narrower than the dot
            figure.add("line", css="cap", x1=end, x2=end, y1=3.0, y2=21.0)
    if best is not None:
        baseline_mark(figure, "best", x.clipped(best), 12, f"best possible: {shown(best)}")
    for name, found in baselines:
        baseline_mark(figure, name, x.clipped(found), 12, f"{name}: {shown(found)}")
    figure.add(
        "circle", "", f"test result: {shown(value)}", css="dot result", cx=x.clipped(value), cy=12, r=4
    )
    return figure


SHAPES = {
    "constant": "M0,-7 V7",
    "linear": "M0,-5.5 L5.5,0 L0,5.5 L-5.5,0 Z",
    "derived": "M0,-5.5 L5.5,4.5 L-5.5,4.5 Z",
    "best": "M-4,-6 L4,6 M-4,6 L4,-6",
}
OTHER = "M-4.5,-4.5 H4.5 V4.5 H-4.5 Z"


def baseline_mark(figure: Figure, name: str, x: float, y: float, title: str = "") -> None:
    """The mark of a baseline, by its shape."""
    shape = SHAPES.get(name, OTHER)
    figure.add("path", "", title, css="mark", d=shape, transform=f"translate({x:.1f} {y:.1f})")


def key_of(name: str) -> Figure:
    """The mark of a baseline, or of the result, for a legend."""
    figure = Figure("", width=16, height=16)
    if name == "result":
        figure.add("circle", css="dot result", cx=8, cy=8, r=5)
    elif name in ("interval", "seeds"):
        figure.add("line", css="interval seeds" if name == "seeds" else "interval", x1=1, x2=15, y1=8, y2=8)
    elif name == "margin":
        figure.add("rect", css="margin", x=0, y=1, width=16, height=14)
    else:
        baseline_mark(figure, name, 8, 8)
    return figure


def differences(task: str, measure: str, found: Sequence[Difference], margin: float | None) -> Figure:
    """A row for each arm: its difference, of which more is better, the interval over rows and seeds, and over seeds.

    Args:
        measure: what the difference is of, below the axis.
        margin: differences within it count as equivalent.
    """
    row, top, width = 48.0, 30.0, 440.0
    label = "; ".join(f"{one.name}: {shown(one.difference)}, {one.verdict}" for one in found)
    figure = Figure(f"{task}, {measure}: {label}", width=width)
    ends = [0.0, *(one.difference for one in found)]
    ends += [end for one in found for pair in (one.interval, one.interval_seeds) if pair for end in pair]
    shown_margin = min(margin or 0.0, FARTHEST * max(map(abs, ends)) or math.inf)
    if margin is not None:
        ends += [-shown_margin, shown_margin]
    x = Scale(*range_of(ends), LABELS, width - 12)
    bottom = top + row * len(found)
    if margin is not None:
        figure.add(
            "rect", "", f"equivalent: within {shown(margin)}", css="margin", x=x(-shown_margin), y=top - 8,
            width=x(shown_margin) - x(-shown_margin), height=bottom - top + 8,
        )  # fmt: skip
    figure.add("line", css="zero", x1=x(0), x2=x(0), y1=top - 8, y2=bottom)
    figure.text(x.start, 14, "← worse", "tick", "start")
    figure.text(x.end, 14, "better →", "tick", "end")
    for k, one in enumerate(found):
        _compared(figure, x, top + row * k, one)
    ticks = x.ticks()
    figure.add("line", css="axis", x1=x.start, x2=x.end, y1=bottom, y2=bottom)
    for tick in ticks:
        figure.add("line", css="axis", x1=x(tick), x2=x(tick), y1=bottom, y2=bottom + 4)
        figure.text(x(tick), bottom + 16, tick_text(tick, ticks), "tick")
    figure.text((x.start + x.end) / 2, bottom + 32, cut(measure, MOST_LETTERS), "name")
    figure.height = bottom + 38
    return figure


def _compared(figure: Figure, x: Scale, y: float, one: Difference) -> None:
    """The row of one arm."""
    lines = [(one.arm, "arm"), *([(f"against {one.against}", "arm")] if one.against else [])]
    lines.append((one.verdict, f"arm verdict-{one.verdict.replace(' ', '-')}"))
    for k, (text, css) in enumerate(lines):
        figure.text(0, y + (12 if len(lines) == 3 else 18) + 13 * k, cut(text, 22), css, "start")
    of_seeds = None if _alike(x, one.interval, one.interval_seeds) else one.interval_seeds
    for pair, css, lift in ((one.interval, "interval", 0.0), (of_seeds, "interval seeds", 8.0)):
        if pair is not None:
            name = "rows and seeds" if lift == 0 else "seeds alone"
            title = f"{one.name}, {name}: {shown(pair[0])} to {shown(pair[1])}"
            at = y + 22 + lift
            figure.add("line", "", title, css=css, x1=x(pair[0]), x2=x(pair[1]), y1=at, y2=at)
    title = f"{one.name}: {shown(one.difference)}"
    figure.add("circle", "", title, css="dot result", cx=x(one.difference), cy=y + 22, r=5)


def _alike(x: Scale, interval: Interval | None, other: Interval | None) -> bool:
    """Whether two intervals look the same, to a pixel."""
    if interval is None or other is None:
        return False
    return all(abs(x(a) - x(b)) < 1 for a, b in zip(interval, other, strict=True))

"""Marks of a figure, its axes, and the text of its numbers.

A mark is an SVG element by name. Colours are classes, which the page's style sheet turns into colours for light and
dark screens and for print. Sizes are in pixels of a screen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from mtl.console import number

WIDTH, HEIGHT = 340, 230
"""The size of an ordinary figure, which fits a phone."""
SERIES = 6
"""Number of line colours; more lines repeat them."""


@dataclass(frozen=True)
class Mark:
    """One SVG element.

    Args:
        tag: its name.
        attributes: attribute -> value; those with the value None are left out.
        text: what stands in it.
        title: what a pointer that rests on it shows.
    """

    tag: str
    attributes: dict[str, str | float | None]
    text: str = ""
    title: str = ""


@dataclass
class Figure:
    """One figure.

    Args:
        label: what it shows, for readers who hear it.
        title: what stands above it.
        legend: (class, text) of each entry below the title.
        note: what stands below it.
    """

    label: str
    title: str = ""
    width: float = WIDTH
    height: float = HEIGHT
    marks: list[Mark] = field(default_factory=list)
    legend: list[tuple[str, str]] = field(default_factory=list)
    note: str = ""
    wide: bool = False

    def add(
        self, tag: str, text: str = "", title: str = "", /, css: str = "", **attributes: float | str | None
    ) -> None:
        """Add a mark; `_` in the name of an attribute stands for `-`."""
        named = {name.replace("_", "-"): _short(value) for name, value in attributes.items()}
        self.marks.append(Mark(tag, {"class": css or None, **named}, text, title))

    def text(self, x: float, y: float, text: str, css: str = "", anchor: str = "middle") -> None:
        """Write a text; `anchor` says which of its ends is at x."""
        self.add("text", text, x=x, y=y, css=css, text_anchor=anchor)

    def line(self, points: Sequence[tuple[float, float]], css: str) -> None:
        """Draw a line through points."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.add("polyline", points=path, css=f"line {css}")


def _short(value: float | str | None) -> float | str | None:
    if not isinstance(value, float):
        return value
    value = round(value, 1)
    return int(value) if value == int(value) else value


@dataclass(frozen=True)
class Scale:
    """Maps values from `low` to `high` onto pixels from `start` to `end`, by their logarithm if `log`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, self.low))
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def clipped(self, value: float) -> float:
        """The same within the ends."""
        return self(min(max(value, self.low), self.high))

    def ticks(self, most: int = 5, integer: bool = False) -> list[float]:
        """Round values within the scale."""
        from matplotlib.ticker import LogLocator, MaxNLocator

        if self.log and self.high > 10 * self.low:
            found = LogLocator(subs=(1, 3) if self.high < 300 * self.low else (1,)).tick_values(
                self.low, self.high
            )
        else:
            steps = [1, 2, 5, 10] if integer else [1, 2, 2.5, 5, 10]
            locator = MaxNLocator(nbins=most, steps=steps, integer=integer)
            found = locator.tick_values(self.low, self.high)
        slack = 1e-9 * (self.high - self.low)
        return [float(tick) for tick in found if self.low - slack <= tick <= self.high + slack]


def range_of(values: Sequence[float], pad: float = 0.06) -> tuple[float, float]:
    """The lowest and the highest value with some room; of equal values a range around them."""
    low, high = min(values), max(values)
    room = pad * (high - low) or abs(low) * 0.05 or 0.5
    return low - room, high + room


def tick_text(value: float, ticks: Sequence[float]) -> str:
    """A tick with as many decimals as the distance of ticks needs."""
    value = 0.0 if abs(value) < 1e-12 * max(map(abs, ticks)) else value
    step = min((b - a for a, b in pairwise(ticks)), default=abs(value) or 1)
    if max(map(abs, ticks)) >= 1e5 or step < 1e-4:
        return f"{value:.3g}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
    decimals = max(0, math.ceil(-math.log10(step) - 1e-9))
    if abs(step * 10**decimals - round(step * 10**decimals)) > 1e-6:  # a step of 2.5
        decimals += 1
    return f"{value:,.{decimals}f}"


def cut(text: str, most: int) -> str:
    """The beginning of a name that is too long for its place."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def shown(value: float | None) -> str:
    """A number with four significant digits."""
    return number(value)


def amount(value: float | None) -> str:
    """A number of rows, which is whole unless rows have weights."""
    return number(int(value) if value is not None and value == int(value) else value)


def spread(value: float | None) -> str:
    """A spread with two significant digits."""
    return "-" if value is None else f"{float(f'{value:.2g}'):g}"


def brief(value: float | None) -> str:
    """A probability with two significant digits; one that is too small to matter is told as such."""
    return "< 0.001" if value is not None and 0 < value < 0.001 else spread(value)


def axes(
    figure: Figure, x: Scale, y: Scale, x_name: str, y_name: str, whole: bool = False, grid: bool = True
) -> None:
    """Draw both axes with ticks, a quiet grid, and names."""
    left, right, bottom, top = x.start, x.end, y.start, y.end
    ticks = y.ticks()
    for tick in ticks:
        if grid:
            figure.add("line", css="grid", x1=left, x2=right, y1=y(tick), y2=y(tick))
        figure.text(left - 6, y(tick) + 4, tick_text(tick, ticks), "tick", "end")
    ticks = x.ticks(integer=whole)
    for tick in ticks:
        figure.add("line", css="axis", x1=x(tick), x2=x(tick), y1=bottom, y2=bottom + 4)
        figure.text(x(tick), bottom + 16, tick_text(tick, ticks), "tick")
    figure.add("line", css="axis", x1=left, x2=right, y1=bottom, y2=bottom)
    figure.text((left + right) / 2, bottom + 32, x_name, "name")
    if y_name:
        figure.text(2, top - 8, y_name, "name", "start")


def box(figure: Figure, x_range: tuple[float, float], y_range: tuple[float, float]) -> tuple[Scale, Scale]:
    """The scales of an ordinary figure."""
    return (
        Scale(*x_range, 44, figure.width - 10),
        Scale(*y_range, figure.height - 38, 22),
    )

"""Facts about rows and steps that the user should know before a run begins."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from mtl.console import counted, percent
from mtl.data.types import Array, Rows
from mtl.dataset.copies import n_copied
from mtl.recipe.keys.recipe import Recipe

FEW_ROWS = 30
"""A held-out split with fewer rows gives a notice: one row of 30 is 3.3 points of accuracy."""

FAR = 0.5
"""A split gives a notice if it differs from its fraction by more than this part of the fraction, and by over a row."""


def missed_fractions(
    splits: Mapping[str, Rows], fractions: Mapping[str, float], n: int, whole: str | None
) -> Iterator[str]:
    """A line about each held-out split that is far from the fraction which the recipe asks for.

    Args:
        splits: split -> its rows.
        fractions: split -> the fraction that it should hold.
        n: the rows that the fractions are of.
        whole: what stays on one side of the split, in words; None if it is not known.
    """
    why = f", because {whole} stays whole" if whole is not None else ""
    for split, fraction in fractions.items():
        n_rows = len(splits[split])
        if abs(n_rows - fraction * n) > max(FAR * fraction * n, 1):
            yield (
                f"split {split!r} has {percent(n_rows, n)} of the rows ({n_rows:,} of {n:,}) "
                f"where data.split.{split} asks for {fraction * 100:.3g}%{why}"
            )


MANY = 0.01
"""A run gives a notice if more than this part of its test rows repeat training rows."""


def repeated_rows(recipe: Recipe, inputs: Array, splits: Mapping[str, Rows]) -> Iterator[str]:
    """A line if many test rows have exactly the inputs of a training row; generated rows are not looked at."""
    if "test" not in splits or is_generated(recipe):
        return
    n, n_test = n_copied(inputs, splits["train"], splits["test"]), len(splits["test"])
    if n > MANY * n_test:
        yield (
            f"{n:,} of {counted(n_test, 'test row')} ({percent(n, n_test)}) {'has' if n == 1 else 'have'} exactly the "
            "inputs of a training row, so that test says less about new rows; leave out repeated rows, or keep them on "
            "one side by data.split.group"
        )


def notices_of(recipe: Recipe, splits: Mapping[str, Rows]) -> Iterator[str]:
    """The notices about the size of splits and steps, one line each.

    Args:
        recipe: the recipe; rows that it generates are not the user's to add, so that few of them are no notice.
        splits: split -> its rows.
    """
    if not is_generated(recipe):
        yield from (_few(split, len(rows)) for split, rows in splits.items() if _is_small(split, len(rows)))
    train = recipe.train
    n_batches = math.ceil(len(splits["train"]) / train.batch_size)
    if train.accumulate > max(n_batches, 1):
        yield (
            f"train.accumulate is {train.accumulate}, but an epoch has {n_batches} "
            f"batch{'es' if n_batches > 1 else ''} of {train.batch_size} rows, so that it is a single step"
        )


def is_generated(recipe: Recipe) -> bool:
    """Whether a source makes its rows up."""
    return any(source.generated_now() for source in recipe.data.by_name.values())


def _is_small(split: str, n_rows: int) -> bool:
    return split != "train" and n_rows < FEW_ROWS


def _few(split: str, n_rows: int) -> str:
    so = "its results are rough" if split == "test" else "the step that it selects is largely chance"
    each = f"one row is {100 / n_rows:.3g}% of them" if n_rows > 1 else "a single row decides them"
    if split != "test" and n_rows == 1:
        each = "a single row decides it"
    return f"split {split!r} has {counted(n_rows, 'row')}, so {so}: {each}"

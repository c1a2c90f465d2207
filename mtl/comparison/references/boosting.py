"""One model of gradient-boosted trees by scikit-learn: its number of iterations is chosen, then it is fitted.

Shapes: n rows, F inputs of one row, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mtl.comparison.references.tree_inputs import TreeInputs
from mtl.data.types import Rows
from mtl.errors import EnvironmentFault

Float64 = npt.NDArray[np.float64]
Loss = Literal["log_loss", "squared_error", "absolute_error"]

OLDEST = (1, 7)
"""`fit` takes validation rows of its own since this version."""
MOST_ITERATIONS, MOST_TREES = 1000, 20_000
"""Iterations at most, and trees at most: an iteration grows one tree for each class."""
PATIENCE = 20
"""Boosting ends after this many iterations in a row that serve the choosing rows no more."""
ITERATIONS = 100
"""Iterations where no rows can choose them; scikit-learn's own default."""
TENTH, FEWEST = 10, 200
"""Without validation rows every tenth training row chooses, if there are at least this many training rows."""
AT_ONCE = 200_000
"""Rows that are predicted at once."""
CHOSEN_BY = {
    "validation": "validation rows",
    "training": "every tenth training row, then fitted on all",
    "nothing": "fixed, for want of rows to choose by",
    "one class": "no trees: the training rows have one class",
}


@dataclass(frozen=True)
class Sample:
    """Rows to fit or to choose by: their numbers, targets (n,) and weights (n,), all weights above 0."""

    rows: Rows
    y: npt.NDArray[Any]
    weight: Float64

    @property
    def weights(self) -> Float64 | None:
        """The weights; None if all are equal, which takes less time."""
        return None if not len(self.weight) or np.ptp(self.weight) == 0 else self.weight

    def take(self, chosen: npt.NDArray[np.bool_]) -> Sample:
        """The rows that a mask chooses."""
        return Sample(self.rows[chosen], self.y[chosen], self.weight[chosen])


@dataclass(frozen=True)
class Boosted:
    """What one model predicts, and facts about it.

    Args:
        p: (n, C) the probability of each class, or (n, 1) the value.
        iterations: how many were fitted and count.
        chosen_by: what chose their number.
        n_rows: the rows that were fitted.
    """

    p: Float64
    iterations: int
    chosen_by: str
    n_rows: int


def require_scikit_learn() -> str:
    """The version of scikit-learn.

    Raises:
        EnvironmentFault: it is not installed, or too old.
    """
    todo = "pip install 'mtl-recipes[trees]'"
    try:
        import sklearn
    except ModuleNotFoundError:
        raise EnvironmentFault("trees", "scikit-learn is not installed", todo) from None
    version: str = sklearn.__version__
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        what = f"scikit-learn {version} is too old, at least {OLDEST[0]}.{OLDEST[1]} is needed"
        raise EnvironmentFault("trees", what, todo)
    return version


def boosted(
    inputs: TreeInputs,
    train: Sample,
    chooser: Sample | None,
    asked: Rows,
    loss: Loss,
    n_classes: int = 1,
) -> Boosted:
    """Fit trees on weighted rows, and predict others; equal rows give equal trees, whatever the number of threads.

    The number of iterations is the one with the lowest loss on `chooser`. Without it every tenth training row chooses,
    and then all rows are fitted anew with that number. Classes that `train` lacks have the probability 0. If it has
    one class at most, the probabilities are (count + 1) / (n + C), and no tree is grown.

    Args:
        inputs: the inputs of all rows.
        train: the rows to fit.
        chooser: the rows that choose, such as those of validation.
        asked: the rows to predict.
        loss: the loss, which decides between classes and values.
        n_classes: C.
    """
    of_classes = loss == "log_loss"
    seen = np.unique(train.y) if of_classes else np.zeros(0, dtype=np.int64)
    if of_classes and len(seen) < 2:
        counts = np.bincount(train.y, minlength=n_classes) + 1
        return Boosted(
            np.tile(counts / counts.sum(), (len(asked), 1)), 0, CHOSEN_BY["one class"], len(train.rows)
        )
    trees_each = len(seen) if len(seen) > 2 else 1
    most = max(1, min(MOST_ITERATIONS, MOST_TREES // trees_each))
    chosen_by = "validation"
    if chooser is None or not len(_known(chooser, seen).rows):
        chosen_by, rest, chooser = _without_validation(train, seen)
        model = None if chooser is None else _fitted(inputs, rest, chooser, loss, most)
        best = min(most, ITERATIONS) if model is None else _best(model)
        model = _fitted(inputs, train, None, loss, best)
    else:
        model = _fitted(inputs, train, _known(chooser, seen), loss, most)
        best = _best(model)
    found = np.concatenate(
        [_predicted(model, inputs.rows(part), best) for part in _parts(asked)] or [np.zeros((0, 1))]
    )
    if of_classes:
        whole = np.zeros((len(asked), n_classes))
        whole[:, seen.astype(np.int64)] = found
        found = whole
    return Boosted(found, best, CHOSEN_BY[chosen_by], len(train.rows))


def _known(chooser: Sample, seen: npt.NDArray[Any]) -> Sample:
    """The rows whose class was seen in training; all rows where there are no classes."""
    return chooser.take(np.isin(chooser.y, seen)) if len(seen) else chooser


def _without_validation(train: Sample, seen: npt.NDArray[Any]) -> tuple[str, Sample, Sample | None]:
    """What chooses the iterations, the rows to fit meanwhile, and the rows that choose."""
    tenth = np.arange(len(train.rows)) % TENTH == TENTH - 1
    rest = train.take(~tenth)
    left = np.unique(rest.y) if len(seen) else seen
    chooser = _known(train.take(tenth), left)
    if len(train.rows) < FEWEST or len(chooser.rows) == 0 or (len(seen) and len(left) < 2):
        return "nothing", train, None
    return "training", rest, chooser


def _fitted(inputs: TreeInputs, train: Sample, chooser: Sample | None, loss: Loss, iterations: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    options: dict[str, Any] = {
        "max_iter": iterations,
        "early_stopping": chooser is not None,
        "n_iter_no_change": PATIENCE,
        "categorical_features": inputs.categorical,
        "random_state": 0,
    }
    if loss == "log_loss":
        model = HistGradientBoostingClassifier(**options)
    else:
        model = HistGradientBoostingRegressor(loss=loss, **options)
    x = inputs.rows(train.rows)
    x[:, np.isnan(x).all(0)] = 0  # scikit-learn fails on a column without a value; no tree splits a constant
    if chooser is None:
        return model.fit(x, train.y, train.weights)
    return model.fit(
        x, train.y, train.weights,
        X_val=inputs.rows(chooser.rows), y_val=chooser.y, sample_weight_val=chooser.weights,
    )  # fmt: skip


def _best(model: Any) -> int:
    """The iterations with the lowest loss on the choosing rows; `validation_score_` begins with that of no tree."""
    return max(1, int(np.argmax(model.validation_score_)))


def _parts(rows: Rows) -> Iterator[Rows]:
    for start in range(0, len(rows), AT_ONCE):
        yield rows[start : start + AT_ONCE]


def _predicted(model: Any, x: npt.NDArray[np.float32], iterations: int) -> Float64:
    """(n, C) probabilities of the seen classes, or (n, 1) values, after that many iterations."""
    stages = model.staged_predict_proba(x) if hasattr(model, "classes_") else model.staged_predict(x)
    found = np.asarray(next(islice(stages, iterations - 1, None)), dtype=np.float64)
    return found if found.ndim == 2 else found[:, None]

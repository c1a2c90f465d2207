"""Predicts with a trained run: raw rows become classes, values and probabilities."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from mtl.data.columns.unseen import Unseen, notices
from mtl.data.types import Array
from mtl.evaluation.evaluate import evaluation_mode
from mtl.inference.decoding import Predictions, decoded
from mtl.inference.feeding import Feed
from mtl.inference.load import Trained, load_trained
from mtl.inference.rescore import rescore


@dataclass(frozen=True)
class TrainedModel(Trained):
    """A trained run that predicts and can be evaluated."""

    @cached_property
    def feed(self) -> Feed:
        """The feed that turns data into rows for the network; of several sources, the first one gives the form."""
        return Feed(next(iter(self.recipe.data.by_name.values())), self.header, self.learned)

    def predict(self, data: Any) -> Predictions:
        """Predict for all rows at once.

        Args:
            data: an array of raw inputs (n, ...); a path of a CSV, Parquet or npz file; a pyarrow Table; a
                mapping of column -> sequence; or a data frame.

        Returns:
            Column -> n values: `<task>` is the class (a number or truth value if all classes are) or the value in the
            label's unit, `<task>_p` the
            probability of yes, `<task>_p_<class>` that of each class or label.

        Raises:
            UserError: a column is missing, or holds a wrong value.

        Warns:
            UserWarning: more than half of a column's values were not seen in training.
        """
        unseen = self.feed.unseen()
        parts = [part for _, part in self.batches(data, unseen=unseen)]
        for notice in notices(unseen):
            warnings.warn(notice, stacklevel=2)
        parts = parts or [self._predict(np.empty((0, *self.feed.shape), np.float32))]
        joined: Predictions = {}
        for name, first in parts[0].items():
            pieces = [part[name] for part in parts]
            if isinstance(first, list):
                joined[name] = [value for piece in pieces for value in piece]
            else:
                joined[name] = np.concatenate(pieces)
        return joined

    def batches(
        self, data: Any, keep: Sequence[str] = (), unseen: Mapping[str, Unseen] | None = None
    ) -> Iterator[tuple[dict[str, Any], Predictions]]:
        """Predict batch by batch; each batch comes with its values of the `keep` columns.

        `unseen` counts the values of each categorical column that were not seen in training.
        """
        for kept, inputs in self.feed.batches(data, keep, unseen):
            yield kept, self._predict(inputs)

    @torch.inference_mode()
    def _predict(self, inputs: Array) -> Predictions:
        device = next(self.built.model.parameters()).device
        with evaluation_mode(self.built.model):
            logits = self.built.model(torch.from_numpy(inputs).to(device))
        return decoded(self.recipe, self.built, logits.groups)

    def evaluate(
        self, split: str = "test", data: str | os.PathLike[str] | None = None
    ) -> dict[str, float | None]:
        """Metrics on a split of the run's data, or on all rows of another file that has labels.

        Raises:
            UserError: there is no such split, or the file has another form than the run's data.

        Warns:
            UserWarning: more than half of the values of a column of `data` were not seen in training, or the run was
                trained on this file or on rows of it, which is known while the run's data are still there.
        """
        return rescore(self, split, data, lambda notice: warnings.warn(notice, stacklevel=3))


def load(path: str | os.PathLike[str], device: str = "auto") -> TrainedModel:
    """Load a finished run, or a run with a checkpoint, as a predictor; its data are not needed.

    `device` is chosen as `train.device` of a recipe is. Nothing is printed. If the run is not finished, `notice` says
    which weights are used.

    Raises:
        UserError: there is no such run or device, or the run has no whole checkpoint.
    """
    found = load_trained(path, device)
    return TrainedModel(found.recipe, found.built, found.header, found.learned, found.folder, found.notice)

"""What a finished run shared, measured on the run's own data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mtl.data.files.opening import opened_once
from mtl.dataset.assemble import read_sources
from mtl.errors import UserError
from mtl.evaluation.links.document import document
from mtl.evaluation.links.measure import MOST_CUTS, MOST_ROWS, measure
from mtl.inference.load import Trained
from mtl.inference.rescore import own_data
from mtl.training import devices


@opened_once()
def links_of(
    model: Trained,
    *,
    most_rows: int = MOST_ROWS,
    most_cuts: int = MOST_CUTS,
    told: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """What a finished run shared, as the content of links.json; see `mtl/evaluation/links/document.py`.

    Args:
        model: the loaded run.
        most_rows: as in `mtl.evaluation.links.measure.measure`.
        most_cuts: likewise.
        told: gets a line before many passes.

    Raises:
        UserError: the run is not finished, or its data have changed.
    """
    record, recipe = model.folder.record, model.recipe
    if record.selected is None:
        place = str(model.folder.path)
        raise UserError(place, "is not finished", f"mtl run --resume {place} goes on")
    split = "validation" if "validation" in record.data.rows else "train"
    with devices.settings(recipe.train.deterministic, record.threads):
        dataset = own_data(model, split)
        groups = None
        if recipe.data.split.group is not None:
            groups = read_sources(recipe).extra(recipe.data.split.group)[0].astype(np.int64, copy=False)
        device = next(model.built.model.parameters()).device
        found = measure(
            model.built.model, recipe, dataset.to(device), groups,
            most_rows=most_rows, most_cuts=most_cuts, told=told,
        )  # fmt: skip
        return document(model.built.model, recipe, found, record.selected.step)

"""What is refused before anything is loaded: a recipe without settings, or with some that it does not take."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from mtl.errors import EnvironmentFault, UserError, quoted
from mtl.recipe.tuned import require_tunable
from mtl.tuning.folder import folder_of, remembered
from mtl.tuning.request import Asked


def require_sweep(asked: Asked) -> None:
    """Refuse a request that no sweep can be made of; this reads no data.

    Raises:
        UserError: the recipe has nothing to tune, names a setting that it does not take, is a chain of runs, or looks
            at its test split; or the folder holds something else.
        EnvironmentFault: Optuna is not installed, or there is no folder for the file of SQLite.
    """
    recipe = asked.recipe
    if find_spec("optuna") is None:
        raise EnvironmentFault("mtl tune", "optuna is not installed", "pip install 'mtl-recipes[tune]'")
    if not recipe.tune:
        todo = "add tune: {optimizer.lr: {log_uniform: [1e-4, 1e-2]}}"
        with recipe.at():
            raise UserError("", "the recipe has no settings to tune", todo)
    if recipe.phases:
        with recipe.at("phases"):
            raise UserError(
                "", "a trial is one run, and these are several", "tune the recipe of one phase: ~phases"
            )
    if recipe.train.monitor == "test":
        with recipe.at("train", "monitor"):
            what = "a sweep never looks at the test split"
            raise UserError("", what, "take this key out: ~train.monitor")
    require_tunable(recipe)
    if asked.storage is not None:
        from mtl.tuning.study import checked_url

        url = checked_url(asked.storage)
        folder = Path(url.database or "").parent
        if url.get_backend_name() == "sqlite" and not folder.is_dir():
            raise EnvironmentFault("--storage", f"there is no folder {quoted(str(folder))}", "make it")
    remembered(asked, folder_of(asked))

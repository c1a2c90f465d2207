"""One sweep, from a recipe to the best one: it is checked, its trials are made, and its outcome is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

import torch

from mtl.comparison.processes.machines import Machines, machines_of, usual_jobs
from mtl.comparison.processes.pool import LOG, Job
from mtl.errors import EnvironmentFault, UserError
from mtl.experiment.run import prepare
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.tuned import with_settings
from mtl.runs.disk import make_folder
from mtl.signals import undoing
from mtl.training import devices
from mtl.training.trainer import Trainer
from mtl.tuning.checks import require_sweep
from mtl.tuning.folder import DATABASE, TRIALS, Memory, folder_of, remembered, study_of
from mtl.tuning.outcome import Outcome, outcome_of, write_outcome
from mtl.tuning.request import Announced, Asked, Silent, Watcher
from mtl.tuning.space import own_params

if TYPE_CHECKING:
    import optuna

    from mtl.tuning.study import Address

WORKER = "mtl.tuning.worker"


def conduct(asked: Asked, watcher: Watcher | None = None) -> Outcome:
    """Make the trials of a sweep that are missing, and write its outcome.

    A trial that was broken off goes on where its run was saved, and the trials of other processes on the same storage
    count. So the same request after a stop, a kill or a crash goes on.

    Raises:
        UserError: the recipe or the data are at fault, or no trial has a result.
        EnvironmentFault: the storage cannot be reached, or fails meanwhile.
    """
    watcher = watcher or Silent()
    require_sweep(asked)
    from mtl.tuning.study import storage_faults

    with machines_of(asked.on) as machines, storage_faults():
        return _conduct(asked, watcher, machines)


def _conduct(asked: Asked, watcher: Watcher, machines: Machines) -> Outcome:
    from mtl.tuning import study as studies

    folder, recipe = folder_of(asked), asked.recipe
    memory = remembered(asked, folder)
    with devices.settings(recipe.train.deterministic):
        trainer, device = prepare(machines.looked_at(with_settings(recipe)))
        threads = torch.get_num_threads()
    metric, higher = _metric(recipe, trainer)
    here = (None if asked.on else asked.jobs) or usual_jobs(device.type)
    threads = memory.threads if memory is not None else machines.threads(recipe, threads, here)
    jobs = asked.jobs or machines.at_once(recipe, threads, here)
    facts = {
        studies.RECIPE: recipe.sha256(),
        studies.DATA: trainer.dataset.fingerprint,
        studies.METRIC: metric,
    }
    notices = trainer.notices
    del trainer  # its rows and weights take memory that the trials need
    make_folder(folder)
    url = asked.storage or _own_storage(folder)
    address = studies.Address(url, study_of(recipe), recipe.seeds.init, studies.BEAT, studies.GRACE)
    study = studies.join(address, higher)
    studies.require_same(study, facts)
    Memory(recipe_sha256=recipe.sha256(), threads=threads).save(folder)
    if not studies.n_begun(study) and any((folder / TRIALS).glob("*")):
        what = "holds trials that are not in this storage"
        raise UserError(str(folder), what, "give the --storage that they were begun with, or another --out")
    if not study.get_trials(deepcopy=False) and (own := own_params(recipe)) is not None:
        study.enqueue_trial(own, skip_if_exists=True)  # the first trial is the recipe as it is
    shown = studies.checked_url(url).set(query={}).render_as_string(hide_password=True)
    n_done = studies.n_begun(study)
    watcher.begins(
        Announced(
            asked, folder, address.study, shown, metric, higher, n_done, jobs, threads, notices, machines.told
        )
    )
    _Sweep(asked, folder, study, address, metric, higher, jobs, threads, watcher, machines).make()
    outcome = outcome_of(recipe, study, metric, higher, folder)
    write_outcome(recipe, outcome)
    return outcome


def _metric(recipe: Recipe, trainer: Trainer) -> tuple[str, bool]:
    """The validation metric that chooses the best trial, and whether more of it is better.

    Raises:
        UserError: there is no validation split, no metric is defined in it, or a setting changes what it means.
    """
    if "validation" not in trainer.dataset.splits:
        with recipe.at("tune"):
            what = "validation judges the trials, and no rows are held out for it"
            raise UserError("", what, "set data.split.validation")
    if trainer.selecting is None:
        with recipe.at("tune"):
            raise UserError("", "no task with a weight has a loss in validation", "split otherwise")
    metric, higher = trainer.selecting
    changed = [key for key in recipe.tune if key.split(".")[0] == "tasks"]
    if metric.endswith("/loss") and changed:
        with recipe.at("tune", changed[0]):
            what = f"changes what {metric} means, by which trials are compared"
            raise UserError("", what, "name another metric in train.early_stopping.metric")
    return metric, higher


def _own_storage(folder: Path) -> str:
    """The file of SQLite in the folder of the sweep."""
    from sqlalchemy import URL

    return URL.create("sqlite", database=str(folder.absolute() / DATABASE)).render_as_string()


@dataclass
class _Sweep:
    """The state of one sweep while its trials are made."""

    asked: Asked
    folder: Path
    study: optuna.Study
    address: Address
    metric: str
    higher: bool
    jobs: int
    threads: int
    watcher: Watcher
    machines: Machines
    silent_since: dict[int, float] = field(default_factory=dict)

    def make(self) -> None:
        """Make trials until enough have ended; trials of other processes are waited for, in case these die."""
        from mtl.tuning.study import running

        told = False
        with undoing():
            while True:
                while left := self._n_left():  # a trial that a worker finds dead has to be made again
                    before = self._n_trials()
                    self._make(left)
                    if self._n_trials() == before and self._n_left():
                        what = "its processes end before they begin a trial"
                        raise EnvironmentFault("mtl tune", what, f"see {self.folder / LOG}")
                others = running(self.study)
                if not others:
                    return
                if not told:
                    n = len(others)
                    self.watcher.says(
                        f"{'a trial runs' if n == 1 else f'{n} trials run'} in another process, or it was killed; "
                        f"{'it counts' if n == 1 else 'they count'} as lost after {self.address.grace} s of silence"
                    )
                    told = True
                sleep(min(self.address.beat, self.address.grace / 4))
                self._bury_dead()

    def _make(self, left: int) -> None:
        """Make as many trials; fewer if other processes make some of them."""
        order = {
            "recipe": self.asked.recipe.plain(), "folder": str(self.folder), "metric": self.metric,
            "higher": self.higher, "trials": self.asked.trials, "threads": self.threads,
            "address": vars(self.address),
        }  # fmt: skip
        jobs = [Job(f"trial {i + 1} of this command", order, once=True) for i in range(left)]
        n, plugins, says = min(self.jobs, left), self.asked.plugins, self.watcher.says
        made_by = self.machines.workers(n, self.threads, plugins, self.folder, says, WORKER, all_share=True)
        with made_by as each:
            each.do(jobs, self.watcher.reports, lambda: self._n_left() > 0)

    def _n_trials(self) -> int:
        """How many trials the storage has that are or were under way, those that were repeated too."""
        from optuna.trial import TrialState

        return sum(trial.state != TrialState.WAITING for trial in self.study.get_trials(deepcopy=False))

    def _n_left(self) -> int:
        """How many trials have not begun yet."""
        from mtl.tuning.study import n_begun

        return max(0, self.asked.trials - n_begun(self.study))

    def _bury_dead(self) -> None:
        """Repeat the trials whose processes have died, those without any sign of life among them."""
        from mtl.tuning.study import bury, fail_silent, running

        fail_silent(self.study)
        now = monotonic()
        for trial in running(self.study):
            since = self.silent_since.setdefault(trial.number, now)
            if not trial.params and now - since > self.address.grace:
                bury(self.study, trial)

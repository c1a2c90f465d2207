"""The study of a sweep in Optuna's storage: it is opened and joined, its trials are counted, lost ones are repeated."""

from __future__ import annotations

import socket
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from mtl.errors import EnvironmentFault, UserError, quoted
from mtl.model.layers import derived_seed

STARTUP = 5
"""Trials that must be complete before any is pruned."""
WARM_UP = 3
"""Evaluations of a trial before which it is not pruned, since curves cross at their beginning."""
BEAT, GRACE = 10, 60
"""Seconds between two signs of life of a trial; seconds without one after which its process counts as dead."""
RETRIES = 1
"""How often a trial is repeated whose process died; a setting that kills its process twice has failed."""
BUSY = 60.0
"""Seconds to wait for a file of SQLite that another process writes."""
OPENINGS = 5
"""Tries to open a new storage, whose tables another process may be making at this moment."""

REPEATS, DEATHS, SAME, WHY, SURPLUS = "repeats", "deaths", "same_as", "why", "surplus"
"""Attributes of trials: earlier attempts, how many of them died, a trial of the same settings, the reason of a
failure, one too many."""
RECIPE, DATA, METRIC = "recipe_sha256", "data_sha256", "metric"
"""Attributes of the study: what all its trials have in common."""
FAILURES = (SQLAlchemyError, optuna.exceptions.StorageInternalError)
"""What Optuna raises if its storage fails."""


@dataclass(frozen=True)
class Address:
    """Where a study is.

    Args:
        url: of the storage; it may hold a password and is written nowhere.
        study: the name of the study.
        seed: from which the settings are drawn.
        beat, grace: as `BEAT` and `GRACE`.
    """

    url: str
    study: str
    seed: int
    beat: int = BEAT
    grace: int = GRACE


class Repeatable(optuna.samplers.BaseSampler):
    """TPE (Bergstra et al. 2011, NeurIPS 24) whose draws depend on the seed, the place of a trial, and earlier results.

    So a sweep of one process makes the same trials again, also if it was stopped in between.

    Args:
        seed: of the sweep.
    """

    def __init__(self, seed: int) -> None:
        self.seed, self._tpe = seed, optuna.samplers.TPESampler()

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Seed the draws of this trial by its place among the trials that count."""
        place = sum(other.number < trial.number for other in own_trials(study))
        self._tpe = optuna.samplers.TPESampler(seed=derived_seed(self.seed, "tune", place) % 2**32)
        self._tpe.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The settings that are drawn together."""
        return self._tpe.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw settings together."""
        return self._tpe.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw one setting."""
        return self._tpe.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Hand over the end of a trial."""
        self._tpe.after_trial(study, trial, state, values)


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, Optuna says nothing of a new study, nor that its signs of life are experimental."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def checked_url(text: str) -> sqlalchemy.URL:
    """The URL of a storage that several processes can open.

    Raises:
        UserError: it is no URL, or a database in the memory of one process.
    """
    try:
        url = sqlalchemy.make_url(text)
    except ArgumentError:
        raise UserError("--storage", "is not the URL of a database", "write sqlite:///sweep.db") from None
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        what = "a database in memory is lost with its process, and no other one sees it"
        raise UserError("--storage", what, "write sqlite:///sweep.db")
    return url


def join(address: Address, higher: bool) -> optuna.Study:
    """The study of a sweep, which is made if it is not there.

    Raises:
        UserError: the storage cannot be used.
        EnvironmentFault: it cannot be reached, or its driver is not installed.
    """

    def joined() -> optuna.Study:
        return optuna.create_study(
            storage=_opened(address),
            study_name=address.study,
            direction="maximize" if higher else "minimize",
            load_if_exists=True,
            sampler=Repeatable(address.seed),
            pruner=_pruner(),
        )

    with _quiet():
        return _in_words(joined)


def joined_again(address: Address) -> optuna.Study:
    """The study of a sweep that has begun, for a process that makes its trials.

    Raises:
        UserError: the study is not in the storage, as where another machine has another file of this name.
        EnvironmentFault: as in `join`.
    """

    def joined() -> optuna.Study:
        return optuna.load_study(
            storage=_opened(address),
            study_name=address.study,
            sampler=Repeatable(address.seed),
            pruner=_pruner(),
        )

    with _quiet():
        try:
            return _in_words(joined)
        except KeyError:
            what = f"the sweep is not in the storage that {socket.gethostname()} sees"
            raise UserError("--storage", what, "give one that all machines reach") from None


def _pruner() -> optuna.pruners.BasePruner:
    return optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=WARM_UP)


def _opened(address: Address) -> optuna.storages.RDBStorage:
    """The storage; two processes may make its tables at once, and the second one tries again."""
    is_file = checked_url(address.url).get_backend_name() == "sqlite"
    for left in reversed(range(OPENINGS)):
        try:
            return optuna.storages.RDBStorage(
                address.url,
                engine_kwargs={"connect_args": {"timeout": BUSY}} if is_file else None,
                heartbeat_interval=address.beat,
                grace_period=address.grace,
                heartbeat_stale_trial_callback=_repeat_dead,
            )
        except (SQLAlchemyError, AssertionError) as error:
            if isinstance(error, (ArgumentError, NoSuchModuleError)) or not left:
                raise
            time.sleep(0.2)
    raise AssertionError("the last try returns or raises")


@contextmanager
def storage_faults() -> Iterator[None]:
    """Inside, a storage that fails is an error of one line without its URL.

    Raises:
        UserError: SQLAlchemy has no such database.
        EnvironmentFault: it failed.
    """
    try:
        yield
    except NoSuchModuleError:
        what = "names a kind of database that SQLAlchemy lacks"
        raise UserError("--storage", what, "use sqlite:///") from None
    except (*FAILURES, AssertionError) as error:
        fault: BaseException | None = error
        # Optuna 5 meets an AssertionError while it handles the fault of the storage
        while isinstance(fault, AssertionError):
            fault = fault.__context__
        if not isinstance(fault, FAILURES):
            raise
        cause = getattr(fault, "orig", None) or getattr(fault.__cause__, "orig", None) or fault
        raise EnvironmentFault("--storage", f"cannot be used: {' '.join(str(cause).split())}") from None


def _in_words(use: Callable[[], optuna.Study]) -> optuna.Study:
    """Open the storage, and turn what that raises into an error of one line without its URL."""
    try:
        with storage_faults():
            return use()
    except ImportError as error:
        what = f"the driver of this database is not installed: {quoted(str(error.__cause__ or error))}"
        raise EnvironmentFault("--storage", what, "install it with pip") from None
    except RuntimeError as error:  # tables of another version of Optuna
        raise UserError("--storage", " ".join(str(error).split()), "give another storage") from None


def require_same(study: optuna.Study, facts: Mapping[str, str]) -> None:
    """Require that the trials of a study have these facts in common; the first process writes them down.

    Raises:
        UserError: the study was begun with others.
    """
    known = study.user_attrs
    for name, value in facts.items():
        if known.get(name, value) != value:
            word = {DATA: "other data", METRIC: f"another metric, {known[name]}"}.get(name, "another recipe")
            what = f"the study {study.study_name} was begun with {word}"
            raise UserError("--storage", what, "give another storage, or another name to the recipe")
        if name not in known:
            study.set_user_attr(name, value)


def repeat(study: optuna.Study, trial: FrozenTrial | optuna.Trial, deaths: int = 0) -> None:
    """Queue the settings of a trial again that did not come to its end; the trial itself does not count any more."""
    attempts = [*trial.user_attrs.get(REPEATS, ()), trial.number]
    deaths += trial.user_attrs.get(DEATHS, 0)
    study.enqueue_trial(trial.params, user_attrs={REPEATS: attempts, DEATHS: deaths})


def _repeat_dead(study: optuna.Study, trial: FrozenTrial) -> None:
    """Repeat a trial whose process died, unless it has died too often; Optuna has marked it as failed."""
    if trial.user_attrs.get(DEATHS, 0) < RETRIES:
        repeat(study, trial, deaths=1)


def bury(study: optuna.Study, trial: FrozenTrial) -> None:
    """Repeat a trial whose process died before its first sign of life, which Optuna does not notice."""
    _repeat_dead(study, trial)
    with suppress(ValueError):  # another process has done so
        study.tell(trial.number, state=TrialState.FAIL)


def own_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count, by their numbers: not those that were repeated, or begun beyond the asked number."""
    trials = study.get_trials(deepcopy=False)
    aside = {number for trial in trials for number in trial.user_attrs.get(REPEATS, ())}
    return [trial for trial in trials if trial.number not in aside and SURPLUS not in trial.user_attrs]


def n_begun(study: optuna.Study) -> int:
    """How many trials of those that count have begun or ended."""
    return sum(trial.state != TrialState.WAITING for trial in own_trials(study))


def running(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that run now, or whose process died."""
    return [trial for trial in own_trials(study) if trial.state == TrialState.RUNNING]


def first_number(trial: FrozenTrial | optuna.Trial) -> int:
    """The number of the first attempt at these settings, after which the run folder is called."""
    return int(trial.user_attrs.get(REPEATS, [trial.number])[0])


def fail_silent(study: optuna.Study) -> None:
    """Mark the trials as failed that gave no sign of life for long, and repeat them."""
    with _quiet():
        optuna.storages.fail_stale_trials(study)

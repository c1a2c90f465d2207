"""The ranks of a run begin with one state; rank 0 keeps the run folder, and the others follow it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import sleep

from mtl.distributed.alone import Ranks
from mtl.distributed.ranks import Together, running_statistics
from mtl.errors import UserError
from mtl.experiment.facts import environment
from mtl.runs import state
from mtl.runs.disk import pieces
from mtl.signals import StopAsked, StopSignals
from mtl.training.loop import fit
from mtl.training.trainer import Trainer

SAME = ("mtl", "torch", "numpy")
"""The versions that all ranks must share, since state passes between them."""


def require_fit_for_ranks(trainer: Trainer, ranks: Ranks) -> None:
    """Refuse a recipe that several processes cannot train, and processes that differ in data or versions.

    Raises:
        UserError: see above.
    """
    if ranks.n == 1:
        return
    recipe, together = trainer.recipe, f"{ranks.n} processes"
    if recipe.train.compile:
        with recipe.at("train", "compile"):
            raise UserError("", f"is for one process, and {together} train together", "leave it out")
    if trainer.weighting.needs == "gradients" and trainer.shared is not None and not trainer.shared.n_shared:
        with recipe.at("weighting", "grads_on"):
            what = f"features of all rows are in one process only, and {together} share a batch"
            raise UserError("", what, "use grads_on: shared")
    smallest = trainer.sampler.smallest // trainer.weighting.batches  # a step may cut its batch into so many
    if recipe.model.backbone.norm.sync and smallest < 2 * ranks.n:
        with recipe.at("train", "batch_size"):
            what = f"the smallest batch has {smallest} rows, and norm.sync needs two of each process"
            raise UserError("", f"{what} of {ranks.n}", "raise it, or set train.drop_last: true")
    own = {"the recipe": recipe.sha256(), "the data": trainer.dataset.fingerprint}
    own["the kind of device"] = trainer.device.type
    own |= {name: value for name, value in environment().items() if name in SAME}
    first, *others = ranks.all_told(own)
    for rank, other in enumerate(others, 1):
        for name, value in other.items():
            if value != first[name]:
                what = f"{name} of rank {rank} is not that of rank 0 ({value[:12]}, and {first[name][:12]})"
                raise UserError("torchrun", what, "give all machines the same files and versions")


def notices_on_ranks(trainer: Trainer) -> Iterator[str]:
    """Yield what differs from a run in one process, one line each."""
    n, batch = trainer.ranks.n, trainer.recipe.train.batch_size
    if n == 1:
        return
    yield f"{n} processes train together; each has {batch // n} rows of a batch of {batch}"
    if batch < 2 * n:
        yield f"with batches of {batch} rows, {n - max(1, batch // 2)} of {n} processes have no row in any step"
    if running_statistics(trainer.built.model):
        yield "batch norm: each process normalizes by its own rows; with norm.sync: true by those of all"


def spread(trainer: Trainer, ranks: Ranks, path: Path | None = None) -> None:
    """Give all ranks the state of rank 0, so that they begin or go on with the same bits.

    Args:
        trainer: the trainer of this rank.
        ranks: the processes.
        path: the run folder, which rank 0 knows.
    """
    trainer.ranks = ranks
    if not isinstance(ranks, Together):
        return
    files = state.capture(trainer, {}) if ranks.rank == 0 else {}
    place, *names = ranks.all_told([str(path), *files])[0]
    ranks.watch.todo = f"`mtl run --resume {place}` goes on from its last checkpoint"
    with tempfile.TemporaryDirectory() as folder:
        places = {name: Path(folder, name) for name in names}
        for name, file in places.items():
            content = ranks.told(b"".join(pieces(files.get(name, b""))))
            if ranks.rank:
                file.write_bytes(content)
        restore = partial(state.restore, trainer, places, allow_nonfinite=True)
        ranks.agreed(restore if ranks.rank else lambda: None)
    ranks.device = trainer.device


def stop_of(ranks: Ranks, stop: StopSignals) -> Callable[[], None]:
    """The check between steps, by which all ranks stop at the same step where one of them got a signal."""
    if not isinstance(ranks, Together):
        return stop.check
    ranks.signal = lambda: stop.number

    def check() -> None:
        if ranks.asked is not None:
            raise StopAsked(ranks.asked)

    return check


def wait_for_first(ranks: Ranks) -> None:
    """Wait until rank 0 has left, as after its last save: torchrun gives it 30 s from the first end of another rank."""
    while isinstance(ranks, Together) and not ranks.watch.has_left(0):
        sleep(0.1)


def follow(trainer: Trainer, ranks: Ranks) -> str:
    """Train beside rank 0, and return what it tells of its result; this process writes nothing.

    Raises:
        KeyboardInterrupt: a signal has stopped the run.
        RankLost: another rank is gone.
    """
    spread(trainer, ranks)
    with StopSignals() as stop:
        check = stop_of(ranks, stop)
        try:
            for _ in fit(trainer, check):
                check()
        except StopAsked as asked:
            wait_for_first(ranks)
            raise asked.as_interrupt() from None
    return ranks.end(None)

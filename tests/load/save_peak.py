"""What a checkpoint takes of memory: `python -m tests.load.save_peak --megabytes 1024`.

One process builds and trains a network of so many MB of weights for one step by Adam, whose moments are twice as many,
and saves it into FOLDER. With `--resume` it begins another one of the same recipe, and restores that save. Prints the
bytes of the model, of its largest tensor and of the files, what was in memory before, and by how much that grew at its
peak, pages of mapped files included. Linux only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable
from math import isqrt
from pathlib import Path
from time import perf_counter

from mtl.experiment.run import prepare
from mtl.recipe.load import load_recipe
from mtl.runs import checkpoint, state
from mtl.runs.disk import pieces
from mtl.training.trainer import Trainer
from tests.support.listening import epochs_of
from tests.support.recipes import linear, small


def recipe(megabytes: int) -> dict[str, object]:
    """One tower of two large layers and two small ones around them."""
    width = isqrt(megabytes * 2**20 // 16)
    return small(
        data__source={"kind": "synthetic", "tasks": 2, "rows": 2, "test_rows": 2, "features": 8},
        model__towers="one",
        model__backbone__stages=linear(width, 2 * width, width),
        optimizer={"kind": "adam", "lr": 1e-3},
        train={"max_steps": 1, "batch_size": 2, "device": "cpu", "threads": 1},
    )


def grown(act: Callable[[], object]) -> tuple[int, int, float]:
    """Bytes in memory before, by how many they grew at their peak, and the seconds it took."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak is what is there now
    before, began = peak(), perf_counter()
    act()
    return before, peak() - before, perf_counter() - began


def peak() -> int:
    """The most bytes of this process that were ever in memory."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description="What a checkpoint takes of memory.")
    parser.add_argument("--megabytes", type=int, default=128)
    parser.add_argument("--resume", action="store_true", help="restore the save that is there")
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    trainer, _ = prepare(load_recipe(recipe(given.megabytes)))
    step = given.folder / "step-00000001"

    def save() -> None:
        checkpoint.commit(given.folder, 1, state.capture(trainer, {}), "run")

    def restore() -> None:
        state.restore(trainer, checkpoint.verified(step))

    if not given.resume:
        assert len(list(epochs_of(trainer))) == 1
    before, growth, seconds = grown(restore if given.resume else save)
    sizes = [tensor.nbytes for tensor in trainer.built.model.state_dict().values()]
    found = {
        "model": sum(sizes), "largest": max(sizes), "files": checkpoint.size_of(step), "growth": growth,
        "before": before, "seconds": round(seconds, 2), "digest": digest(trainer),
    }  # fmt: skip
    print(json.dumps(found))


def digest(trainer: Trainer) -> str:
    """Of the state as it is: a restored one is the saved one."""
    whole = hashlib.sha256()
    for name, content in state.capture(trainer, {}).items():
        for piece in pieces(content):
            whole.update(name.encode())
            whole.update(piece)
    return whole.hexdigest()


if __name__ == "__main__":
    main()

"""What a checkpoint costs beside writing and syncing as many bytes plainly: the ratio of the two times.

    python bench/checkpoint.py [--repeats 15] [--folder DIR]

The network is that of recipes/fashion_stitch.yaml with Adam's two moments, as `state.capture` makes its files. A round
writes the same pieces plainly (one file each, synced) and as a checkpoint, in turn; the medians of both and of the
ratio of each round are printed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
from pathlib import Path
from time import perf_counter

import torch

from mtl.build import parameter_groups
from mtl.experiment.trial import build_and_try
from mtl.recipe.load import load_recipe
from mtl.runs import checkpoint, state
from mtl.runs.tensor_files import TensorFile


def files_of(name: str) -> dict[str, TensorFile]:
    """The large files of a checkpoint of a built-in recipe."""
    recipe = load_recipe(name)
    built, _ = build_and_try(recipe)
    model = built.model.to_empty(device="cpu")
    tasks = recipe.tasks.values()
    weighting = recipe.weighting.build(
        tuple(task.weight for task in tasks), tuple(task.reads == "numbers" for task in tasks)
    )
    optimizer = recipe.optimizer.build(parameter_groups(recipe, model, weighting))
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return {
        state.MODEL: TensorFile(model.state_dict()),
        state.OPTIMIZER: TensorFile(state._optimizer_tensors(optimizer)),
    }


def plainly(folder: Path, files: dict[str, TensorFile]) -> float:
    """Seconds to write and sync the same bytes."""
    began = perf_counter()
    for name, pieces in files.items():
        with (folder / name).open("xb", buffering=0) as file:
            for piece in pieces:
                left = memoryview(piece)
                while left:
                    left = left[file.write(left) :]
            os.fsync(file.fileno())
    return perf_counter() - began


def committed(folder: Path, files: dict[str, TensorFile]) -> float:
    began = perf_counter()
    checkpoint.commit(folder, 1, files, "run")
    return perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--folder", help="where to write; default: a temporary folder")
    given = parser.parse_args()
    files = files_of("fashion_stitch")
    size = sum(len(piece) for pieces in files.values() for piece in pieces)
    times: dict[str, list[float]] = {"plain": [], "commit": []}
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        for n in range(given.repeats + 1):
            for kind, write in (("plain", plainly), ("commit", committed))[:: 1 if n % 2 else -1]:
                folder = Path(scratch) / kind
                folder.mkdir()
                seconds = write(folder, files)
                shutil.rmtree(folder)
                if n:  # the first round warms up
                    times[kind].append(seconds)
    ratios = [commit / plain for plain, commit in zip(times["plain"], times["commit"], strict=True)]
    quartiles = statistics.quantiles(ratios, n=4)
    print(f"{size / 1e6:.1f} MB in {len(files)} files, {given.repeats} rounds")
    for kind, seconds in times.items():
        print(f"{kind:7} {statistics.median(seconds):.3f} s ({min(seconds):.3f} to {max(seconds):.3f})")
    print(f"ratio   {statistics.median(ratios):.2f} (quartiles {quartiles[0]:.2f} to {quartiles[2]:.2f})")


if __name__ == "__main__":
    main()

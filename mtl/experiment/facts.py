"""The first content of run.json: the identity, versions, machine, data and model of a run."""

from __future__ import annotations

import hashlib
import platform
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from mtl import __version__
from mtl.distributed.alone import ALONE, Ranks
from mtl.recipe.load import to_yaml
from mtl.runs.record import SCHEMA_VERSION, DataRecord, ModelRecord, RunRecord
from mtl.training.trainer import Trainer


def first_record(trainer: Trainer, plugins: Sequence[str], ranks: Ranks = ALONE) -> RunRecord:
    """The record of a run that is about to begin.

    Args:
        trainer: the trainer, before its first step.
        plugins: the plug-ins that were loaded.
        ranks: the processes that train together.
    """
    recipe, dataset = trainer.recipe, trainer.dataset
    model = model_record(trainer)
    return RunRecord(
        schema_version=SCHEMA_VERSION,
        id=str(uuid.uuid4()),
        name=recipe.name,
        status="running",
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        recipe_sha256=recipe.sha256(),
        resolved_sha256=[hashlib.sha256(to_yaml(recipe).encode()).hexdigest()],
        description=recipe.description,
        seeds=recipe.seeds.model_dump(),
        plugins=list(plugins),
        plugin_sha256=digests_of(plugins),
        environment=environment(),
        device=str(trainer.device),
        threads=torch.get_num_threads(),
        processes=ranks.n,
        data=_data_record(trainer),
        model=model,
        parameters=sum(parameter.numel() for parameter in trainer.built.model.parameters()),
        classes={task: list(dataset.learned.outputs[task]) for task in recipe.tasks},
        towers={tower: list(tasks) for tower, tasks in recipe.towers.items()},
        step=0,
        results={},
        model_sha256=model.sha256(),
    )


def _data_record(trainer: Trainer) -> DataRecord:
    """The number of rows and labels of each split, and the origin of the data."""
    dataset, sources = trainer.dataset, trainer.recipe.data.by_name.values()
    return DataRecord(
        sha256=dataset.fingerprint,
        generated=any(source.generated_now() for source in sources),
        rows={split: len(rows) for split, rows in dataset.splits.items()},
        labels=_label_counts(trainer),
        best_possible_accuracy=dataset.ceiling,
    )


def model_record(trainer: Trainer) -> ModelRecord:
    """The values that were learned beside the weights."""
    dataset = trainer.dataset
    return ModelRecord.model_validate(
        dataset.learned.record(dataset.header), strict=False
    )  # the record has tuples


def environment() -> dict[str, str]:
    """Name -> value, for versions and the machine."""
    return {
        "mtl": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def digests_of(plugins: Sequence[str]) -> dict[str, str]:
    """Plug-in file -> its sha256; the digest of an installed plug-in is left out."""
    files = [name for name in plugins if Path(name).suffix == ".py" and Path(name).is_file()]
    return {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in files}


def _label_counts(trainer: Trainer) -> dict[str, dict[str, int]]:
    """Task -> split -> its number of labels, for the tasks with missing labels or only a part of them."""
    thinned = trainer.recipe.data.label_fraction or {}
    return {
        task: {split: trainer.n_labels(split, task) for split in trainer.dataset.splits}
        for task, spec in trainer.recipe.tasks.items()
        if spec.missing == "mask" or task in thinned
    }

"""The trainer holds the model, the data and the optimizer of one run."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor

from mtl.build import Built, parameter_groups
from mtl.console import counted
from mtl.data.memory import require_memory
from mtl.data.rows.sampling import Sampler
from mtl.dataset.assemble import Dataset
from mtl.distributed.alone import ALONE, Ranks
from mtl.errors import UserError, quoted
from mtl.evaluation.meter import Meter
from mtl.model.compiled import Compiled
from mtl.model.stitched import Logits, StitchedMultiTower
from mtl.model.tasks.module import TaskModule
from mtl.model.weighting import Weighting
from mtl.recipe.keys.recipe import Recipe
from mtl.training.gradients import SharedFeatures, SharedNumbers, SharedSlices
from mtl.training.progress import MAX_STEPS, Progress
from mtl.training.selection import notices_on_selection, selecting_metric
from mtl.training.weighting_contract import check_weighting

ROWS = 1 << 16
"""Weights of this many rows are summed at once."""


@dataclass
class Trainer:
    """The model, the data, the optimizer and the position of one run.

    Args:
        recipe: the checked recipe.
        built: the model and its task groups, on the device.
        dataset: the rows, on the device.
        weighting: turns the losses of N tasks into one gradient.
        optimizer: the optimizer of `parameter_groups`.
        progress: the position of the run.
        meter: the measurements of the epoch under way; None between epochs.
        ranks: the processes that train this network together.
    """

    recipe: Recipe
    built: Built
    dataset: Dataset
    weighting: Weighting
    optimizer: torch.optim.Optimizer
    progress: Progress = field(default_factory=Progress)
    meter: Meter | None = None
    ranks: Ranks = ALONE

    def __post_init__(self) -> None:
        train = self.recipe.train
        model = self.built.model
        with self.recipe.at("train", "compile"):
            self.network: Callable[..., Logits] = (
                Compiled(model, train.batch_size) if train.compile else model
            )
        self.modules = model.modules_of_tasks()
        with self.recipe.at():
            self.sampler = _sampler_of(self.recipe, self.modules, self.dataset)
        self.steps_per_epoch = math.ceil(self.sampler.n_batches / train.accumulate)
        self.total_steps = train.max_steps or self.steps_per_epoch * (train.epochs or 0)
        if self.total_steps >= MAX_STEPS:
            asked = f"{counted(train.epochs or 0, 'epoch')} of {counted(self.steps_per_epoch, 'step')}"
            what = f"{asked}; at most {MAX_STEPS - 1:,} steps in all"
            with self.recipe.at("train", "epochs"):
                raise UserError("", what, "lower it, or raise train.batch_size")
        self.progress.horizon = self.progress.horizon or self.total_steps
        with self.recipe.at("schedule"):
            self.recipe.schedule.check(self.total_steps)
        self.device = next(self.built.model.parameters()).device
        self._order = (-1, "")
        with self.recipe.at("train", "early_stopping"):
            self.selecting = selecting_metric(self.recipe, self.dataset.undefined.get("validation"))
        train_rows, there = self.dataset.splits["train"], self.dataset.rows.present
        self.incomplete = [
            group for group in self.modules if not there[group].cpu().numpy()[train_rows].all()
        ]
        grouped = {task: i for i, task in enumerate(self.built.model.tasks)}
        order = [grouped[task] for task in self.recipe.tasks]
        self._to_results = (
            torch.tensor(order, device=self.device) if order != list(range(len(order))) else None
        )
        self.shared: SharedNumbers | None = None
        if self.weighting.needs == "gradients":
            with self.recipe.at("weighting"):
                self.shared = shared_numbers(self.recipe, self.built.model).to(self.device)
                groups = {name: module.tasks for name, module in self.modules.items()}
                require_labels(self.recipe, self.dataset, groups)
            with self.recipe.at("train", "batch_size"):
                _require_independent(self.recipe, self.weighting)
        self.weighting.prepare(self.shared.n_shared if self.shared is not None else 0)
        self.weighting.to(self.device)

    def in_order(self, values_T: Sequence[Tensor]) -> Tensor:
        """Values (T,) of each task group -> values (N,) in the order of results."""
        values_N = values_T[0] if len(values_T) == 1 else torch.cat(list(values_T))
        return values_N if self._to_results is None else values_N.index_select(0, self._to_results)

    def n_labels(self, split: str, task: str) -> int:
        """The number of labels of one task in a split; 0 if there is no such split."""
        rows, (group, t) = self.dataset.splits.get(split), self.built.model.places[task]
        if rows is None:
            return 0
        return int(self.dataset.rows.present[group][:, t].cpu().numpy()[rows].sum())

    @property
    def epochs(self) -> int:
        """The number of epochs, done and left.

        `max_steps` may end the last epoch early. If `max_steps` was raised later, an earlier epoch may be short too.
        """
        done = self.progress.step - self.progress.step_in_epoch
        return self.progress.epoch + math.ceil((self.total_steps - done) / self.steps_per_epoch)

    @property
    def finished(self) -> bool:
        """Whether the training is over; if early stopping ended an epoch early, this epoch has to be closed first."""
        progress = self.progress
        return progress.epoch >= self.epochs or (progress.stopped and progress.step_in_epoch == 0)

    @property
    def watched(self) -> list[str]:
        """The splits that are evaluated during training."""
        splits = ["validation", *(["test"] if self.recipe.train.monitor == "test" else [])]
        return [split for split in splits if split in self.dataset.splits]

    def evaluation_is_due(self, *, ends_epoch: bool = False, is_last: bool = False) -> bool:
        """Whether an evaluation is due at this step and was not made yet."""
        progress, every = self.progress, self.recipe.train.evaluate_every
        by_steps = every.steps is not None and progress.step % every.steps == 0
        by_epochs = ends_epoch and every.epochs is not None and (progress.epoch + 1) % every.epochs == 0
        return (
            bool(self.watched) and (by_steps or by_epochs or is_last) and progress.evaluated != progress.step
        )

    def new_meter(self) -> Meter:
        """A meter for the training rows of one epoch."""
        return Meter(self.modules, self.recipe.tasks, self.device, self.dataset.undefined["train"])

    @property
    def notices(self) -> tuple[str, ...]:
        """Facts about the data, the weighting and what selects a step that the user should know; one line each."""
        return (
            *self.dataset.notices,
            *notices_on_selection(self.recipe, self.dataset),
            *self.recipe.remarks(),
        )

    def order_sha256(self, epoch: int) -> str:
        """sha256 of the first two batches of an epoch, which shows if another numpy gives a resumed run other rows."""
        if self._order[0] != epoch:
            digest = hashlib.sha256()
            for rows in islice(self.sampler.batches(epoch), 2):
                digest.update(rows.astype("<i8").tobytes())
            self._order = (epoch, digest.hexdigest())
        return self._order[1]

    @classmethod
    def create(cls, recipe: Recipe, built: Built, dataset: Dataset) -> Trainer:
        """A trainer at the start of a run."""
        specs = recipe.tasks.values()
        device = next(built.model.parameters()).device
        weights = tuple(spec.weight for spec in specs)
        with recipe.at("weighting"):
            built_weighting = recipe.weighting.build(
                weights, tuple(spec.reads == "numbers" for spec in specs)
            )
            weighting = check_weighting(recipe.weighting, built_weighting).to(device)
        _set_mean_weights(built.model, dataset)
        groups = parameter_groups(recipe, built.model, weighting)
        return cls(recipe, built, dataset, weighting, recipe.optimizer.build(groups))


def shared_numbers(recipe: Recipe, model: StitchedMultiTower) -> SharedNumbers:
    """What the tasks share, by which a weighting combines their gradients.

    Raises:
        UserError: they share nothing (the path is relative to the weighting).
        EnvironmentFault: the gradients of all tasks do not fit into memory.
    """
    weighting, tasks = recipe.weighting, tuple(recipe.tasks)
    if getattr(weighting, "grads_on", "shared") == "features":
        features = SharedFeatures(model, tasks)
        if not bool(features.is_shared_K.any()):
            what = "no two tasks read the same features, so that their gradients could never conflict there"
            raise UserError("", what, "use grads_on: shared, or kind: sum", path=("grads_on",))
        return features
    slices = SharedSlices(model, tasks)
    if not slices.n_shared:
        what = f"{weighting.kind} combines the gradients of shared parameters, and no parameter is shared"
        raise UserError("", what, "share something in model.sharing, or use kind: sum", path=("kind",))
    require_room_for_gradients(recipe, slices, next(model.parameters()).device)
    return slices


def require_room_for_gradients(recipe: Recipe, shared: SharedNumbers, device: torch.device) -> None:
    """Refuse gradients of all tasks, and a copy of them, that do not fit into memory; only asked on the CPU.

    Raises:
        EnvironmentFault: the gradients need more bytes than are free.
    """
    if device.type != "cpu":
        return
    n_bytes = 4 * len(recipe.tasks) * shared.width(recipe.train.batch_size)
    require_memory(2 * n_bytes, "", f"the gradients of {counted(len(recipe.tasks), 'task')} by what they share",
                   "use a weighting of losses, or a smaller network")  # fmt: skip


def require_labels(recipe: Recipe, dataset: Dataset, groups: Mapping[str, Sequence[str]]) -> None:
    """Refuse a weighting that remembers all tasks together where a step may lack one.

    Args:
        recipe: the recipe.
        dataset: its rows.
        groups: task group -> its tasks.

    Raises:
        UserError: a task has no label in some training rows (the path is relative to the weighting).
    """
    if not recipe.weighting.stateful:
        return
    rows = dataset.splits["train"]
    for group, tasks in groups.items():
        counts = dataset.rows.present[group].cpu().numpy()[rows].sum(0)
        for task, n in zip(tasks, counts.tolist(), strict=True):
            if n < len(rows):
                has = f"task {quoted(task)} has labels in {n:,} of {counted(len(rows), 'training row')}"
                what = f"{recipe.weighting.kind} remembers all tasks together, and {has}"
                todo = "take a kind without such a memory, as upgrad or pcgrad"
                raise UserError("", what, todo, path=("kind",))


def _require_independent(recipe: Recipe, weighting: Weighting) -> None:
    """Refuse batches that are too small to be parted into the independent ones that a weighting needs.

    Raises:
        UserError: no step has enough rows.
    """
    n, train = weighting.batches, recipe.train
    if train.accumulate % n and train.batch_size < 2 * n:
        what = f"{recipe.weighting.kind} parts a step into {n} batches of at least 2 rows"
        todo = f"take {2 * n} rows or more, or set train.accumulate to {n}"
        raise UserError("", f"{what}, and a step has {train.batch_size}", todo)


def _set_mean_weights(model: StitchedMultiTower, dataset: Dataset) -> None:
    """Set for each task the mean weight of its training rows that count: sample weight times class weight."""
    rows, modules = dataset.splits["train"], model.modules_of_tasks()
    exact = torch.float32 if dataset.rows.device.type == "mps" else torch.float64
    totals = {name: module.mean_weight.to(exact) * 0 for name, module in modules.items()}
    counts = {name: total.clone() for name, total in totals.items()}
    for start in range(0, len(rows), ROWS):
        labels = dataset.rows.targets(rows[start : start + ROWS])
        for name, module in modules.items():
            weight_BT = module.row_weight(labels.target[name], labels.weight[name])
            totals[name] += weight_BT.sum(0, dtype=exact)
            counts[name] += (weight_BT > 0).sum(0)
    for name, module in modules.items():
        module.mean_weight.copy_(torch.where(counts[name] > 0, totals[name] / counts[name], 1.0))


def _sampler_of(recipe: Recipe, modules: Mapping[str, TaskModule], dataset: Dataset) -> Sampler:
    """The sampler, which chooses the rows of each batch.

    Raises:
        UserError: the rows do not fill a batch, or a task has fewer labels than the recipe asks for.
    """
    train, rows = recipe.train, dataset.splits["train"]
    asked, found = train.batches.min_labelled, {}
    for name, module in modules.items():
        for t, task in enumerate(module.tasks):
            if task in asked:
                found[task] = rows[dataset.rows.present[name][:, t].cpu().numpy()[rows]]
    streams = {}
    if train.batches.temperature is not None:
        for name, own in dataset.streams.items():
            mine = rows[(rows >= own.start) & (rows < own.stop)]
            if len(mine):  # a source may be for testing only
                streams[name] = mine
    return Sampler(
        rows,
        train.batch_size,
        train.drop_last,
        recipe.seeds.order,
        min_labelled={task: (found[task], asked[task]) for task in recipe.tasks if task in asked},
        streams=streams,
        temperature=train.batches.temperature,
    )

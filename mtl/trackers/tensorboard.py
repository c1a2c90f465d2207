"""Event files that TensorBoard shows."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

from mtl.recipe.specs import TRACKERS, TrackedRun, Tracker, TrackerSpec

FOLDER, PREFIX = "tensorboard", "events.out.tfevents."


@TRACKERS.register("tensorboard")
class TensorBoard(TrackerSpec):
    """Event files in the folder `tensorboard` of the run; `tensorboard --logdir runs` shows all runs in `runs`."""

    reference: ClassVar[str] = "Abadi et al. 2016, arXiv:1603.04467"
    package: ClassVar[str] = "tensorboard"
    install: ClassVar[str] = "pip install 'mtl-recipes[tensorboard]'"

    def open(self) -> Tracker:
        return EventFiles()


class EventFiles(Tracker):
    """One event file for a run.

    A resumed run replaces the file of its earlier part, because points that lie after the checkpoint no longer count.
    Points that stay keep the time at which they were measured.
    """

    def __init__(self) -> None:
        self._path = Path()
        self._times: dict[tuple[str, int], float] = {}

    def begin(self, run: TrackedRun) -> None:
        from tensorboard.compat.proto import event_pb2
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        folder = run.folder / FOLDER
        folder.mkdir(exist_ok=True)
        if folder.is_symlink():  # the files would be written outside of the run
            raise ValueError(f"{folder} is a link, not a folder")
        for path in sorted(folder.glob(f"{PREFIX}*")):
            self._times.update(_times_in(path))
            path.unlink()
        self._path = folder / f"{PREFIX}{time.time():017.6f}.mtl"
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._append(
            event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2"),
            # a TensorBoard that is open forgets with this event what it has read of the removed files
            event_pb2.Event(wall_time=time.time(), step=0, session_log=start),
            event_pb2.Event(wall_time=time.time(), summary=hparams_pb(dict(run.parameters), trial_id=run.id)),
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2

        now = time.time()
        events = []
        for tag, value in values.items():
            at = self._times.get((tag, step), now)
            summary = summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=tag, simple_value=value)])
            events.append(event_pb2.Event(wall_time=at, step=step, summary=summary))
        self._append(*events)

    def artifact(self, path: Path) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2

        if path.suffix != ".png":
            return
        png = path.read_bytes()
        width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))  # of the chunk IHDR
        image = summary_pb2.Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=png)
        summary = summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=path.stem, image=image)])
        self._append(event_pb2.Event(wall_time=time.time(), summary=summary))

    def _append(self, *events: Any) -> None:
        """Append events, all or none: half a record would hide each later one from a reader."""
        from tensorboard.summary.writer.record_writer import RecordWriter

        records = BytesIO()
        writer = RecordWriter(records)
        for event in events:
            writer.write(event.SerializeToString())
        with self._path.open("ab", buffering=0) as file:
            length = os.fstat(file.fileno()).st_size
            rest = memoryview(records.getvalue())
            try:
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError:
                os.truncate(file.fileno(), length)
                raise


def _times_in(path: Path) -> Iterator[tuple[tuple[str, int], float]]:
    """((tag, step), seconds since 1970) of each point of an event file, to the first record that is damaged."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    for event in LegacyEventFileLoader(str(path)).Load():
        for value in event.summary.value:
            yield (value.tag, event.step), event.wall_time

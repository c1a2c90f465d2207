"""One process that makes runs, as its parent sees it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, Any

COMPARED = "mtl.comparison.processes.child"
"""The module that the processes of a comparison run."""
PATIENCE = 120.0
"""Seconds that a stopped process has to save its run."""


class Process:
    """A process that makes runs one after the other.

    Args:
        threads: its threads.
        plugins: the plug-ins that it loads.
        log: the file that gets what it prints.
        module: what it runs: a module that reads orders and writes reports as that of a comparison does.
        environment: variables that it has beside those of its parent.
        folder: its working directory; None: that of its parent.
    """

    def __init__(
        self,
        threads: int,
        plugins: Sequence[str],
        log: IO[bytes],
        module: str = COMPARED,
        environment: Mapping[str, str] | None = None,
        folder: str | None = None,
    ) -> None:
        numbers = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *plugins],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, **numbers, **(environment or {})},
            cwd=folder,
            start_new_session=True,  # an interrupt of the terminal is for the parent, which ends its children
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._input, self.output = self._process.stdin, self._process.stdout
        self._rest = b""
        os.set_blocking(self.output.fileno(), False)

    @property
    def code(self) -> int | None:
        """Its exit code; None while it lives."""
        return self._process.poll()

    def give(self, order: Mapping[str, Any]) -> None:
        """Hand it a job."""
        with suppress(BrokenPipeError):  # a process that is gone is noticed when its output ends
            self._input.write(json.dumps(order).encode() + b"\n")
            self._input.flush()

    def reports(self) -> list[dict[str, Any]]:
        """What it has reported since the last call; this does not wait."""
        read = self.output.read()
        if read == b"":  # its output has ended, and so does the process
            self._process.wait()
        *lines, self._rest = (self._rest + (read or b"")).split(b"\n")
        return [json.loads(line) for line in lines]

    def stop(self) -> None:
        """Close its stdin, which ends its run after a save; this does not wait."""
        with suppress(OSError):
            self._input.close()

    def close(self) -> None:
        """Stop it, and wait until it has ended; one that does not end is killed."""
        self.stop()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.output.close()

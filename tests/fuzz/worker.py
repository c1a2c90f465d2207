"""Fuzz one reader in a process of its own: `python -m tests.fuzz.worker TARGET SECONDS SEED FOLDER`.

Prints one JSON object: how many inputs were read, how many refused, the slowest, and each broken promise with the input
that broke it, which lies in FOLDER.failures. A promise is: the input is read, or refused by a UserError (Damaged, for a
checkpoint) whose lines are printable; in less than SLOWEST seconds of CPU time; within MEMORY bytes more than at the
start; and nothing is written outside FOLDER, started, fetched, unpickled or newly imported.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path

from mtl.errors import UserError
from tests.fuzz.mutation import mutations
from tests.fuzz.targets import TARGETS

SLOWEST = 1.0
MEMORY = 512 << 20
MOST_FAILURES = 5
STARTS = {
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "socket.connect",
    "pickle.find_class",
}
CHANGES = {
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.symlink",
    "os.link",
    "os.truncate",
    "os.chmod",
    "os.utime",
}


class Watch:
    """What Python does while an input is read, told by its audit events."""

    def __init__(self, sandbox: Path) -> None:
        self.sandbox, self.active, self.seen = str(sandbox), False, ""
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.active:
            return
        if event in STARTS:
            self.seen = f"{event} {arguments[:1]}"
        elif event in CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & 3):
            self._path(event, arguments[event in ("os.symlink", "os.link")])  # the name that is made

    def _path(self, event: str, path: object) -> None:
        with suppress(TypeError):
            full = os.path.realpath(os.fsdecode(path))  # type: ignore[arg-type]
            if not full.startswith(self.sandbox) and full != "/dev/null":
                self.seen = f"{event} {full}"


def limit_memory() -> None:
    """MEMORY bytes of address space more than what is taken now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def tops() -> set[str]:
    return {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)


def judge(read: object, data: bytes) -> tuple[str, str]:
    """Whether an input was `read` or `refused`; and which promise it broke."""
    assert callable(read)
    try:
        read(data)
    except UserError as error:
        lines = [str(each) for each in error.errors]
        bad = next((line for line in lines if not line.isprintable() or len(line) > 2000), None)
        return "refused", "" if bad is None else f"not one printable line: {bad[:300]!r}"
    except Exception as error:
        if type(error).__name__ == "Damaged":
            return "refused", "" if str(error).isprintable() else f"not printable: {error!r}"
        import traceback

        frames = traceback.extract_tb(error.__traceback__)[-4:]
        where = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames))
        return "refused", f"{type(error).__name__}: {str(error)[:200]} at {where}"
    return "read", ""


def main(name: str, seconds: float, seed: int, folder: Path) -> dict[str, object]:
    warnings.simplefilter("ignore")
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    target = TARGETS[name](folder)
    inputs = mutations(target.corpus, target.tokens, seed)
    for data in [*target.corpus, b"", b"\0"]:  # the warm-up: what is imported, is imported here
        judge(target.read, data)
    watch, modules = Watch(folder.resolve()), tops()
    limit_memory()
    counts, slowest, failures, seen = {"read": 0, "refused": 0}, 0.0, [], set[str]()
    end = time.monotonic() + seconds
    at_least = int(os.environ.get("MTL_FUZZ_INPUTS", len(target.corpus) + 20))
    while (sum(counts.values()) < at_least or time.monotonic() < end) and len(failures) < MOST_FAILURES:
        data = next(inputs)
        watch.seen, watch.active = "", True
        began = time.process_time()
        outcome, broken = judge(target.read, data)
        took = time.process_time() - began
        watch.active = False
        counts[outcome] += 1
        slowest = max(slowest, took)
        imported = sorted(tops() - modules)
        broken = broken or watch.seen or (f"{took:.1f} s" if took >= SLOWEST else "")
        broken = broken or (f"imported {imported}" if imported else "")
        kind = broken.partition(" at ")[2] or broken
        if broken and kind not in seen:
            seen.add(kind)
            kept = folder.with_suffix(".failures")
            kept.mkdir(exist_ok=True)
            path = kept / hashlib.sha256(data).hexdigest()[:16]
            path.write_bytes(data)
            failures.append(f"{broken} ({path})")
    return {**counts, "slowest": round(slowest, 3), "failures": failures}


if __name__ == "__main__":
    found = main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
    print(json.dumps(found))

"""Every reader of what a stranger may have written, against mutated input. MTL_FUZZ_SECONDS is the time for each."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from mtl.errors import UserError
from tests.fuzz import worker
from tests.fuzz.mutation import changed_parts, mutations
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
SECONDS = float(os.environ.get("MTL_FUZZ_SECONDS", "1"))
SEED = int(os.environ.get("MTL_FUZZ_SEED", "0"))


def test_every_reader_has_a_fuzzer() -> None:
    assert len(TARGETS) == 15


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_breaks_a_promise(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.worker", name, str(SECONDS), str(SEED), str(tmp_path / name)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120 + 3 * SECONDS,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    print(name, found)
    assert found["failures"] == []
    assert found["read"] >= 1, "no input is good: the fuzzer tests nothing"
    assert found["refused"] >= 1


def test_mutations_repeat_by_their_seed() -> None:
    corpus = [b"hello: world\n", b"a" * 50]
    once, again, other = (list(islice(mutations(corpus, (), seed), 200)) for seed in (1, 1, 2))
    assert once == again != other
    assert once[:2] == corpus
    assert len(set(once)) > 150


def test_parts_of_a_value_are_changed_and_the_value_is_not() -> None:
    whole = {"a": {"b": [1, {"c": None}]}, "d": 2}
    before = json.dumps(whole)
    found = {json.dumps(changed_parts(whole, b"%d" % n)) for n in range(300)}
    assert json.dumps(whole) == before == json.dumps(changed_parts(whole, b""))
    assert len(found) > 150
    assert any('"c": ' in text and '"c": null' not in text for text in found), "nothing deep was changed"


def raises(error: Exception) -> object:
    def read(data: bytes) -> None:
        raise error

    return read


@pytest.mark.parametrize(
    ("read", "judged"),
    [
        (lambda data: None, ("read", "")),
        (raises(UserError("f", "what")), ("refused", "")),
        (raises(UserError("f", "two\nlines")), ("refused", "not one printable line: 'f: two\\nlines'")),
        (raises(UserError("f", "\x1b[0m")), ("refused", "not one printable line: 'f: \\x1b[0m'")),
    ],
)
def test_the_judge(read: object, judged: tuple[str, str]) -> None:
    assert worker.judge(read, b"") == judged


@pytest.mark.parametrize("error", [KeyError("a"), MemoryError(), RecursionError(), ZeroDivisionError()])
def test_the_judge_calls_anything_else_a_failure(error: Exception) -> None:
    outcome, broken = worker.judge(raises(error), b"")
    assert outcome == "refused"
    assert broken.startswith(type(error).__name__)


WATCHED = """
import os, sys
from pathlib import Path
from tests.fuzz.worker import Watch
watch = Watch(Path(sys.argv[1]).resolve())
seen = []
def during(act):
    watch.seen, watch.active = "", True
    act()
    watch.active = False
    seen.append(bool(watch.seen))
during(lambda: open("inside.txt", "w").close())
during(lambda: open("inside.txt").close())
during(lambda: open("../outside.txt", "w").close())
during(lambda: os.mkdir("../outside"))
during(lambda: os.rename("inside.txt", "inside2.txt"))
during(lambda: os.system("true"))
print(seen)
"""


def test_the_watch_sees_what_leaves_the_sandbox(tmp_path: Path) -> None:
    (tmp_path / "sandbox").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, "."],
        cwd=tmp_path / "sandbox",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[False, False, True, True, False, True]\n", "")


def test_random_is_not_touched_by_mutations() -> None:
    before = random.getstate()
    list(islice(mutations([b"abc"], (), 0), 10))
    assert random.getstate() == before

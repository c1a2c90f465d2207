"""A text in a file of a run can never look like a line of mtl's own, or steer the terminal.

Every text of run.json, of the logs and of the manifests takes a line end and an escape code, one at a time and all
that are accepted together; every command that shows runs is called.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mtl.cli import main
from mtl.errors import OK, UserError
from mtl.runs.record import read_record
from tests.experiment.test_resume import no_plots
from tests.support.assertions import Capture
from tests.support.recipes import stitched, write

__all__ = ["no_plots"]
pytestmark = pytest.mark.usefixtures("no_plots")
FORGED = "a\nerror: forged\r\x1b[2Jb\u2028c"
COMMANDS = (["runs", "{above}"], ["runs", "{run}"], ["checkpoints", "{run}"], ["eval", "{run}"], ["report", "{run}"],
            ["sharing", "{run}"], ["run", "--resume", "{run}"])  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    above = tmp_path_factory.mktemp("names")
    recipe = write(above, model__sharing=stitched("fc1"), train__epochs=2)
    assert main(["run", str(recipe), "--quiet", "--no-report", "--out", str(above / "run")]) == OK
    return above / "run"


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of each text, and of each key that is no field of mtl's own."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from places(part, (*place, key))
        if isinstance(part, str):
            yield (*place, key)


def put(value: Any, place: tuple[Any, ...]) -> None:
    for key in place[:-1]:
        value = value[key]
    value[place[-1]] = FORGED


def rename(value: Any, place: tuple[Any, ...]) -> bool:
    """Give an entry the forged name."""
    for key in place[:-1]:
        value = value[key]
    if not isinstance(value, dict):
        return False
    value[FORGED] = value.pop(place[-1])
    return True


def check(run: Path, capsys: Capture) -> None:
    for command in COMMANDS:
        main([part.format(run=run, above=run.parent) for part in command])
        shown = capsys.readouterr()
        for line in (shown.out + shown.err).splitlines():
            assert line.isprintable(), (command, line)
            assert not line.startswith("error: forged"), command


def test_texts_of_the_record(made: Path, tmp_path: Path, capsys: Capture) -> None:
    """Those that the record accepts are put in together; the others are refused on one printable line each."""
    run = Path(shutil.copytree(made, tmp_path / "run"))
    plain = json.loads((run / "run.json").read_text())
    together, accepted, said = json.loads(json.dumps(plain)), 0, []
    for place in places(plain):
        forged = json.loads(json.dumps(plain))
        put(forged, place)
        (run / "run.json").write_text(json.dumps(forged))
        try:
            read_record(run / "run.json")
        except UserError as error:
            said.append(str(error))
        else:
            put(together, place)
            accepted += 1
    assert all(text.isprintable() for text in said)
    assert len(said) >= 10
    assert accepted >= 10
    (run / "run.json").write_text(json.dumps(together))
    check(run, capsys)


@pytest.mark.parametrize("section", ["results", "classes", "towers", "environment", "seeds", "decisions"])
def test_names_of_the_record(section: str, made: Path, tmp_path: Path, capsys: Capture) -> None:
    run = Path(shutil.copytree(made, tmp_path / "run"))
    record = json.loads((run / "run.json").read_text())
    record.setdefault(section, {"a": {}})
    assert rename(record, (section, next(iter(record[section]))))
    (run / "run.json").write_text(json.dumps(record))
    check(run, capsys)


@pytest.mark.parametrize("key", ["mtl", "run_id", "created", "files"])
def test_texts_of_a_manifest(key: str, made: Path, tmp_path: Path, capsys: Capture) -> None:
    run = Path(shutil.copytree(made, tmp_path / "run"))
    for path in run.glob("checkpoints/*/manifest.json"):
        manifest = json.loads(path.read_text())
        if key == "files":
            manifest["files"][FORGED] = manifest["files"].pop("state.json")
        else:
            manifest[key] = FORGED
        if key == "mtl":
            manifest["schema_version"] = 99
        path.write_text(json.dumps(manifest))
    check(run, capsys)


@pytest.mark.parametrize("log", ["metrics.jsonl", "sharing.jsonl", "timings.jsonl"])
def test_texts_of_the_logs(log: str, made: Path, tmp_path: Path, capsys: Capture) -> None:
    run = Path(shutil.copytree(made, tmp_path / "run"))
    lines = [json.loads(line) for line in (run / log).read_text().splitlines()]
    for line in lines:
        for place in list(places(line)):
            put(line, place)
        line[FORGED] = 1.0
    (run / log).write_text("".join(json.dumps(line) + "\n" for line in lines))
    check(run, capsys)

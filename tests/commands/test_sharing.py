"""`mtl sharing`: tables and words, --json, links.json, and the errors in one line."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mtl
from mtl.errors import UserError
from mtl.evaluation.links.document import KEYS
from mtl.report.links import read_links
from mtl.runs.folder import RunFolder
from tests.support.assertions import Capture, called, refused
from tests.support.recipes import classes, linear, small, stitched

MANY = 10


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`trained("three")`: the folder of a finished run, made once."""
    folder, made = tmp_path_factory.mktemp("runs"), {}

    def train(name: str, n_tasks: int = 3, **changes: Any) -> Path:
        if name not in made:
            source = {"kind": "synthetic", "tasks": n_tasks, "rows": 160, "test_rows": 10, "features": 8}
            plain = small(
                data={"source": source, "split": {"validation": 0.25}},
                tasks=classes(f"t{t}" for t in range(n_tasks)),
                model__backbone__stages=linear(4, 4),
                model__sharing=stitched("fc1", "fc2"),
            )
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("mtl.report.plots.plot_run", lambda *_: None)
                made[name] = mtl.run({**plain, **changes}, out=folder / name).path
        return made[name]

    return train


def test_tables_and_words(trained: Callable[..., Path], capsys: Capture) -> None:
    done = called(capsys, "sharing", trained("three"))
    assert (done.returncode, done.stderr) == (0, "")
    parts = done.stdout.strip().split("\n\n")
    assert parts[0].splitlines()[0].split() == ["fc1:", "from", "t0", "t1", "t2"]
    assert parts[1].splitlines()[0].split()[0] == "fc2:"
    head = ["at", "into", "from", "task", "share", "loss", "cut", "change", "metric", "value", "cut", "link"]
    assert parts[2].splitlines()[0].split() == head
    assert len(parts[2].splitlines()) >= 2 + 12
    assert parts[3].splitlines()[0].split("  ")[0] == "loss without all links from"
    words = parts[4].splitlines()
    assert words[0].startswith(
        "Measured on 40 rows of validation, in evaluation mode; ± is a standard error over rows."
    )
    assert words[-1].startswith(("No grouping is suggested: ", "A grouping to try: "))
    shares = [float(share) for share in re.findall(r"([\d.]+)%", parts[0])]
    assert sum(shares) == pytest.approx(300, abs=5)


def test_json_is_what_the_file_holds(trained: Callable[..., Path], capsys: Capture) -> None:
    run = trained("three")
    done = called(capsys, "sharing", run, "--json")
    found = json.loads(done.stdout)
    assert found == json.loads((run / "links.json").read_text(encoding="utf-8"))
    assert set(found) == set(KEYS)
    assert found == read_links(RunFolder.open(run))
    assert called(capsys, "sharing", run, "--json").stdout == done.stdout


def test_the_report_of_the_run_shows_what_was_measured(trained: Callable[..., Path], capsys: Capture) -> None:
    run = trained("three")
    assert called(capsys, "sharing", run).returncode == 0
    assert called(capsys, "report", run).returncode == 0
    found = read_links(RunFolder.open(run))
    page = html.unescape((run / "report.html").read_text(encoding="utf-8"))
    assert found is not None
    for word in found["words"]:
        assert word in page
    assert "fc1: share of each source" in page
    assert "Losses when one link is cut, on 40 validation rows" in page
    assert page.count(">without t") == 3


def test_many_tasks_stay_readable(trained: Callable[..., Path], capsys: Capture) -> None:
    run = trained("many", MANY)
    done = called(capsys, "sharing", run, "--rows", "20", "--cuts", "100")
    assert done.returncode == 0
    assert "... and 160 more links in links.json" in done.stdout
    assert "... and 70 more pairs in links.json" in done.stdout
    assert "fc1: from" not in done.stdout
    assert len(done.stdout.splitlines()) < 90
    assert max(len(line) for line in done.stdout.split("\n\n")[0].splitlines()) < 130
    shares = [float(share) for share in re.findall(r"([\d.]+)%", done.stdout.split("\n\n")[0])]
    assert shares == sorted(shares, reverse=True)
    assert "passes over 20 rows of validation" in done.stderr


def test_gates_and_hard_sharing(trained: Callable[..., Path], capsys: Capture) -> None:
    model = {"backbone": {"kind": "layers", "stages": linear(4)}}
    gates = trained("gates", model={**model, "sharing": {"kind": "mmoe", "experts": 2}})
    assert re.search(r"^t0 +\d+% ± \d+ +\d+% ± \d+$", called(capsys, "sharing", gates).stdout, re.MULTILINE)
    hard = trained("hard", model={**model, "towers": "one"})
    done = called(capsys, "sharing", hard)
    assert done.stdout == "3 tasks in one tower: everything but its heads is shared.\n"
    assert done.returncode == 0


def test_readings_without_links(
    trained: Callable[..., Path], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtl.model.trunk import StitchedTowers, Trunk

    monkeypatch.setattr(StitchedTowers, "links", Trunk.links)
    done = called(capsys, "sharing", trained("three"))
    assert done.stdout.startswith("fc1: from")
    assert "lists no links, so that nothing can be observed or cut" in done.stdout


def test_a_grouping_is_printed_as_yaml() -> None:
    from mtl.commands.sharing import _proposal

    towers = {"group_1": ["a", "b"], "c": ["c"]}
    found = {
        "proposal": {"towers": towers, "override": "model.towers={group_1: [a, b], c: [c]}", "rule": "how"}
    }
    assert _proposal(found) == ["model:\n  towers: {group_1: [a, b], c: [c]}", "rule: how"]


def test_one_group_is_printed_as_one_tower(trained: Callable[..., Path], capsys: Capture) -> None:
    from mtl.evaluation.links import document
    from mtl.evaluation.links.grouping import Proposal

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(document, "propose", lambda *_: Proposal({"group_1": ("t0", "t1", "t2")}, "all"))
        done = called(capsys, "sharing", trained("three"))
    assert "\nmodel:\n  towers: one\n" in done.stdout
    assert "A grouping to try" not in done.stdout


def test_numbers_on_training_rows_are_said_to_be_so_first(
    trained: Callable[..., Path], capsys: Capture
) -> None:
    source = {"kind": "synthetic", "tasks": 3, "rows": 160, "test_rows": 10, "features": 8}
    done = called(capsys, "sharing", trained("seen", data={"source": source}))
    assert done.stdout.startswith(
        "There is no validation split: all numbers below are of rows that the network was"
    )


def test_errors(small_run: Path, tmp_path: Path, capsys: Capture) -> None:
    refused(
        lambda: called(capsys, "sharing", small_run),
        small_run,
        [f"{small_run}: is not finished; mtl run --resume {small_run} goes on"],
    )
    refused(
        lambda: called(capsys, "sharing", tmp_path / "no"), tmp_path, ["no checkpoint found: no such folder"]
    )
    refused(lambda: called(capsys, "sharing", small_run, "--rows", "1"), tmp_path, ["--rows"])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{", "links.json: cannot be read: "),
        ("[1]", "links.json: is not of schema 1; mtl sharing writes it again"),
        ('{"schema_version": 2}', "links.json: is not of schema 1"),
        ('{"schema_version": 1, "step": 1}', "links.json: has no 'sharing'"),
        (None, "links.json: cannot be read: is not a regular file"),
    ],
)
def test_a_file_that_is_no_links_json(
    content: str | None, text: str, trained: Callable[..., Path], tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path, RunFolder.open(trained("three")).record)
    if content is None:
        (tmp_path / "links.json").mkdir()
    else:
        (tmp_path / "links.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_links(folder)
    assert text in str(caught.value)


def test_nobody_asked_or_the_run_went_on(
    trained: Callable[..., Path], tmp_path: Path, capsys: Capture
) -> None:
    run = trained("three")
    called(capsys, "sharing", run)
    folder = RunFolder(tmp_path, RunFolder.open(run).record)
    assert read_links(folder) is None
    found = json.loads((run / "links.json").read_text(encoding="utf-8"))
    (tmp_path / "links.json").write_text(json.dumps({**found, "step": 1}), encoding="utf-8")
    assert read_links(folder) is None

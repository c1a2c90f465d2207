"""`mtl checkpoints`, and what a run that goes on from one is told."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

from mtl.errors import OK
from tests.support.assertions import Capture, called, refused
from tests.support.command_line import finished as finished
from tests.support.command_line import folder as folder
from tests.support.command_line import good
from tests.support.command_line import run_of as run_of


def test_checkpoints(run_of: Path, capsys: Capture, folder: Path) -> None:
    head, _, *rows = good(called(capsys, "checkpoints", run_of)).splitlines()
    assert head.split() == ["checkpoint", "state", "made", "size"]
    made = [
        json.loads(path.read_text())["created"] for path in sorted(run_of.glob("checkpoints/*/manifest.json"))
    ]
    sizes = [
        sum(path.stat().st_size for path in step.iterdir())
        for step in sorted(run_of.glob("checkpoints/step-*"))
    ]
    assert [row.split() for row in rows] == [
        ["step-00000002", "whole", made[0], f"{sizes[0] / 1000:.1f}", "kB"],
        ["step-00000004", "whole,", "selected", made[1], f"{sizes[1] / 1000:.1f}", "kB"],
    ]
    os.truncate("done/checkpoints/step-00000002/model.safetensors", 9)
    (folder / "done/checkpoints/step-00000004/state.json").unlink()
    rows = good(called(capsys, "checkpoints", run_of)).splitlines()[2:]
    assert "step-00000002  damaged (model.safetensors: size differs)" in rows[0]
    assert "step-00000004  damaged (state.json: missing)" in rows[1]
    shutil.rmtree("done/checkpoints")
    assert good(called(capsys, "checkpoints", run_of)) == "no checkpoints in done\n"
    refused(lambda: called(capsys, "checkpoints", "t.yaml"), folder, ["t.yaml"])
    refused(lambda: called(capsys, "checkpoints", "nosuch"), folder, ["nosuch: no checkpoint found"])


def test_a_run_without_a_usable_checkpoint(run_of: Path, capsys: Capture, folder: Path) -> None:  # K3
    record = json.loads((folder / "done/run.json").read_text())
    (folder / "done/run.json").write_text(json.dumps({**record, "status": "interrupted"}), encoding="utf-8")
    for path in folder.glob("done/checkpoints/*/model.safetensors"):
        os.truncate(path, 3)
    (folder / "done/.lock").write_text(f"pid {os.getpid()} on host {os.uname().nodename}\n")
    expected = ["no usable checkpoint in done (2 damaged); see mtl checkpoints done"]
    refused(lambda: called(capsys, "run", "--resume", run_of), folder, expected)
    named = "done/checkpoints/step-00000002"  # K4
    expected = [f"{named}: is damaged (model.safetensors: size differs); resume the run to use an older one"]
    refused(lambda: called(capsys, "run", "--resume", named), folder, expected)


def test_options_of_a_run_that_goes_on(run_of: Path, capsys: Capture, folder: Path) -> None:
    for option in ("--extend-schedule", "--allow-nonfinite", "--require-bitwise"):
        expected = [f"{option}: is for a run that goes on; add --resume RUN"]
        refused(lambda option=option: called(capsys, "run", "t.yaml", option), folder, expected)  # type: ignore[misc]
    record = json.loads((folder / "done/run.json").read_text())
    record |= {"status": "interrupted", "environment": {**record["environment"], "torch": "2.10.0"}}
    (folder / "done/run.json").write_text(json.dumps(record), encoding="utf-8")
    expected = ["done: not bitwise: torch 2.10.0 -> ... ; leave out --require-bitwise"]  # F36
    refused(lambda: called(capsys, "run", "--resume", run_of, "--require-bitwise"), folder, expected)
    done = called(capsys, "run", "--resume", run_of, "train.epochs=3", "--extend-schedule", "--quiet")
    assert done.returncode == OK
    assert re.fullmatch(r"warning: not bitwise: torch 2\.10\.0 -> \S+\n", done.stderr)
    assert json.loads((folder / "done/run.json").read_text())["step"] == 6

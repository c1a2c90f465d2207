"""The commands as a user starts them: what they print and what they leave behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

import click
import pytest

from mtl import __version__, cli
from mtl.errors import ENVIRONMENT, INTERRUPTED, OK, TERMINATED, USER
from mtl.recipe.load import load_recipe
from tests.support.assertions import Capture, Done, called, contents, refused
from tests.support.command_line import ROOT, TINY, good
from tests.support.command_line import finished as finished
from tests.support.command_line import folder as folder
from tests.support.command_line import run_of as run_of
from tests.support.recipes import around, table, write

COMMANDS = ["run", "validate", "ls", "show", "cp", "summary", "eval", "runs", "checkpoints", "schema"]
COMMANDS += ["predict", "init", "doctor", "sharing", "export", "compare", "tune"]
FOOTWEAR = """\
import mtl


@mtl.register_task("parity")
class Parity(mtl.tasks.Multiclass):
    \"\"\"Is it odd?\"\"\"

    reference = "ours"
    target: str = "task1"
"""
RUN_FILES = {
    *("recipe.yaml", "recipe.resolved.yaml", "run.json", "metrics.jsonl", "metrics.csv", "timings.jsonl"),
    *("sharing.jsonl", "test_details.json", "bootstrap.json", "report.html", ".lock"),
}
STEP_FILES = {
    "model.safetensors",
    "optim.safetensors",
    "weighting.safetensors",
    "state.json",
    "manifest.json",
}


# --- help ---


def test_help_lists_every_command(capsys: Capture) -> None:
    out = good(called(capsys, "--help"))
    listed = re.findall(r"^  ([a-z]+) {2,}\S", out.split("Commands:")[1], re.MULTILINE)
    assert listed == list(cli.cli.commands)
    assert set(listed) >= set(COMMANDS)
    assert good(called(capsys, "-h")) == out


@pytest.mark.parametrize("name", list(cli.cli.commands))
def test_every_command_has_help(name: str, capsys: Capture) -> None:
    command = cli.cli.commands[name]
    assert command.help
    out = good(called(capsys, name, "--help"))
    assert f"Usage: mtl {name}" in out
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help
            assert parameter.opts[0] in out


def test_version(capsys: Capture) -> None:
    assert good(called(capsys, "--version")) == f"mtl, version {__version__}\n"


def test_help_does_not_live_in_docstrings(capsys: Capture) -> None:
    """Python leaves them out with -OO."""
    given = ["-c", "import sys; from mtl.cli import main; sys.exit(main(['run', '--help']))"]
    done = subprocess.run([sys.executable, "-OO", *given], capture_output=True, text=True, timeout=60)
    assert done.stdout == called(capsys, "run", "--help").stdout
    assert "Train RECIPE and write a run folder." in done.stdout


def test_no_command_at_all_shows_the_help(capsys: Capture) -> None:
    done = called(capsys)
    assert done.returncode == OK
    assert done.stdout == called(capsys, "--help").stdout
    assert "\nCommands:\n" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("--help", 0),
        ("ls", 0),
        ("ls tasks", 0),
        ("cp fashion_stitch new.yaml", 0),
        ("show fashion_fast", 0),
        ("runs", 0),
        ("schema", 0),
        ("validate bad.yaml", 2),
        ("run bad.yaml", 2),
        ("summary bad.yaml", 2),
        ("validate t.yaml sed=1", 2),
        ("run t.yaml --devise cpu", 2),
    ],
)
def test_torch_is_not_loaded(arguments: str, code: int, folder: Path) -> None:
    (folder / "bad.yaml").write_text("a: [\n", encoding="utf-8")
    program = (
        "import sys; from mtl.cli import main; code = main(sys.argv[1:]); "
        "sys.exit(77 if 'torch' in sys.modules else code)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments.split()], env=environment, capture_output=True, check=False
    )
    assert done.returncode == code


def test_help_imports_nothing_heavy() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "mtl", "--help"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    modules = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "mtl.cli" in modules
    assert modules.isdisjoint({"torch", "numpy", "pydantic", "torchmetrics", "matplotlib", "rich"})


# --- the command line's own errors ---


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("rnu", "mtl: no command 'rnu' (did you mean 'run'?)"),
        ("'a\x1bb'", "mtl: no command \"'a\\x1bb'\""),
        ("run", "mtl run: a recipe is missing"),
        ("run --dry-run", "mtl run: a recipe is missing"),
        ("run t.yaml --devise cpu", "mtl run: No such option '--devise' ... '--device'"),
        (
            "run t.yaml --lr 3",
            "mtl run: No such option '--lr' ... settings are key=value, without dashes: optimizer.lr=",
        ),
        ("run no.csv", "'no.csv': no such file, and no built-in recipe has that name"),
        ("run t.yaml --out", "mtl ... Option '--out' requires an argument"),
        ("run t.yaml b", "command line: 'b' is not an override; write key.sub=value"),
        ("run --resume auto", "--resume auto: needs the folder of the run; add --out DIR"),
        ("run --resume x --out y", "--resume: a run goes on in its own folder; leave out --out 'y'"),
        ("run t.yaml --resume x", "--resume: a run has its own recipe; leave out 't.yaml'"),
        ("run t.yaml --device cpuu", "command line: train.device: no device 'cpuu'; one of auto, cpu, "),
        ("validate", "mtl validate: Missing argument 'RECIPE"),
        ("validate train.epochs=1", "mtl validate: a recipe is missing"),
        ("show", "mtl show: Missing argument 'RECIPE'"),
        ("show fashion_stich", "'fashion_stich': no such file ... (did you mean 'fashion_stitch'?)"),
        ("ls tsak", "mtl ls: no family 'tsak' (did you mean 'task'?)"),
        ("runs a b", "mtl runs: Got unexpected extra argument"),
        ("eval", "mtl eval: Missing argument 'RUN'"),
        ("eval nosuch", "nosuch: no checkpoint found: no such folder"),
        ("validate .", ".: is a directory"),
    ],
)
def test_wrong_arguments(arguments: str, expected: str, capsys: Capture, folder: Path) -> None:  # C1
    refused(lambda: called(capsys, *arguments.split()), folder, [expected])


@pytest.mark.parametrize("command", ["run", "validate", "show", "summary"])
def test_a_table_is_no_recipe(command: str, capsys: Capture, folder: Path) -> None:
    (folder / "my rows.csv").write_text("a,b\n" * 3000, encoding="utf-8")
    done = called(capsys, command, "my rows.csv")
    assert (done.returncode, done.stderr) == (
        USER,
        "error: my rows.csv: is a table, not a recipe; "
        "mtl init 'my rows.csv' --targets A,B writes a recipe for its columns A and B\n",
    )


def test_wrong_arguments_in_a_process_of_their_own(run_mtl: Callable[..., Done], folder: Path) -> None:
    refused(lambda: run_mtl("rnu", cwd=folder), folder, ["mtl: no command 'rnu' (did you mean 'run'?)"])
    refused(lambda: run_mtl("ls", "--colour", cwd=folder), folder, ["mtl ls: No such option '--colour'"])


@pytest.mark.parametrize("out", ["t.yaml", "t.yaml/x", "a" * 300, "/proc/nowhere"])
def test_a_run_folder_that_cannot_be_made(out: str, capsys: Capture, folder: Path) -> None:  # K17
    refused(lambda: called(capsys, "run", "t.yaml", "--out", out), folder, [": "], code=ENVIRONMENT)


def test_a_plugin_end_to_end(capsys: Capture, folder: Path) -> None:
    (folder / "parity.py").write_text(FOOTWEAR, encoding="utf-8")
    Path("p.yaml").write_text(
        TINY.replace("{kind: multiclass, target: task1}", "{kind: parity}"), encoding="utf-8"
    )
    expected = ["p.yaml:6:13: tasks.b.kind: unknown task 'parity'"]
    refused(lambda: called(capsys, "validate", "p.yaml"), folder, expected)
    plugin = ["--plugin", "parity.py"]
    assert good(called(capsys, "validate", "p.yaml", *plugin)).startswith("ok p.yaml: 2 tasks")
    assert "parity  " in good(called(capsys, "ls", "tasks", *plugin))
    assert "kind: parity" in good(called(capsys, "show", "p.yaml", *plugin))
    assert '"parity"' in good(called(capsys, "schema", *plugin))
    good(called(capsys, "run", "p.yaml", "--out", "out", "--quiet", "train.epochs=1", *plugin))
    assert json.loads(Path("out/run.json").read_text())["plugins"] == [str(folder / "parity.py")]
    expected = [f"out: the run began with plug-ins that are not loaded; add --plugin {folder / 'parity.py'}"]
    refused(lambda: called(capsys, "run", "--resume", "out"), folder, expected)
    done = called(capsys, "run", "--resume", "out", *plugin)
    assert (done.returncode, done.stderr) == (OK, "warning: out: already finished at step 2\n")


# --- run, eval, runs ---


def test_dry_run_writes_nothing(capsys: Capture, folder: Path) -> None:
    before = contents(folder)
    out = good(called(capsys, "run", "t.yaml", "--dry-run"))
    so = "\nwould train for 4 steps in 2 epochs on cpu; 40 train, 10 test rows\n"
    assert out == good(called(capsys, "summary", "t.yaml")) + so
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--out", "taken"], "taken: the folder is not empty; give another --out"),
        (["schedule={kind: one_cycle, warmup_steps: 9}"], "schedule"),
        (["train.init_from=nowhere"], "train.init_from: ... nowhere: no checkpoint found"),
        (["--device", "cuda:77"], "train.device: cuda:77 asked"),
        (["train.batch_size=41", "train.drop_last=true"], "drop_last leaves no batch"),
    ],
)
@pytest.mark.parametrize("dry", [["--dry-run"], []], ids=["dry", "real"])
def test_what_a_run_refuses_a_dry_run_does_too(
    arguments: list[str], line: str, dry: list[str], capsys: Capture, folder: Path
) -> None:
    (folder / "taken").mkdir()
    (folder / "taken" / "mine.txt").write_text("mine", encoding="utf-8")
    refused(lambda: called(capsys, "run", "t.yaml", *dry, *arguments), folder, [line])


@pytest.mark.usefixtures("run_of")
def test_a_dry_run_into_a_run(capsys: Capture, folder: Path) -> None:
    line = "done: a run is there already; mtl run --resume done, or another --out"
    for dry in (["--dry-run"], []):
        refused(lambda d=dry: called(capsys, "run", "t.yaml", *d, "--out", "done"), folder, [line])


def test_a_run_folder_is_complete(finished: Done) -> None:
    run = finished.args
    files = {path.name for path in run.iterdir()}
    assert files == RUN_FILES | {"checkpoints", "plots"}
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"step-00000002", "step-00000004"}
    for step in (run / "checkpoints").iterdir():
        assert {path.name for path in step.iterdir()} >= STEP_FILES
    assert all(path.suffix == ".png" and path.stat().st_size > 1000 for path in (run / "plots").iterdir())
    assert (run / "recipe.yaml").read_text(encoding="utf-8") == TINY
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["schema_version"] == 1
    assert record["recipe_sha256"] == load_recipe(run / "recipe.resolved.yaml").sha256()
    splits = [json.loads(line)["split"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert splits == ["train", "train", "test"]
    assert len((run / "sharing.jsonl").read_text().splitlines()) == 3


def test_a_run_says_how_it_went(finished: Done) -> None:
    assert (finished.returncode, finished.stderr) == (OK, "")
    lines = finished.stdout.splitlines()
    results = json.loads((finished.args / "run.json").read_text())["results"]
    assert lines[0] == "tiny"
    assert lines[1] == "40 train, 10 test rows; 168 parameters; cpu; run done"
    assert [line.split()[:2] for line in lines[2:4]] == [["epoch", "1/2"], ["epoch", "2/2"]]
    row = {line.split()[0]: line.split() for line in lines[5:10] if line}
    assert row["test"][:3] == ["test", "loss", "accuracy"]
    for task in ("a", "b"):
        assert row[task][1:3] == [
            f"{results[f'test/{task}/{metric}']:.4f}" for metric in ("loss", "accuracy")
        ]
    assert row["mean"][-1] == f"{results['test/mean/accuracy']:.4f}"
    assert results["test/mean/accuracy"] == pytest.approx(
        (results["test/a/accuracy"] + results["test/b/accuracy"]) / 2
    )
    assert "run folder: done  (results in metrics.csv, pictures in plots/)" in lines
    assert "report: done/report.html  (one page; open it in a browser)" in lines


def test_the_shipped_example_runs(capsys: Capture, folder: Path) -> None:
    overrides = ["data.source.rows=400", "data.source.test_rows=100", "train.epochs=1", "train.threads=1"]
    done = called(capsys, "run", "synthetic_stitch", "--quiet", *overrides)
    assert done.returncode == OK
    (run,) = (folder / "runs" / "synthetic_stitch").iterdir()
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{4}", run.name)
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:7]] == ["test", "------", "first", "second", "scarce", "mean"]
    assert "epoch 1/1" not in done.stdout
    assert any(line.startswith(f"run folder: {run.relative_to(folder)}  ") for line in lines)


def test_eval_gives_the_same_numbers(run_of: Path, finished: Done, capsys: Capture) -> None:
    out = good(called(capsys, "eval", run_of))
    table = out.splitlines()
    assert table[0].startswith("test ")
    assert out in finished.stdout
    from mtl.inference.predict import load

    results = json.loads((run_of / "run.json").read_text())["results"]
    again = load(run_of).evaluate()
    assert again == {name: value for name, value in results.items() if name.startswith("test/")}
    assert good(called(capsys, "eval", run_of, "--split", "train")).startswith("train ")


def test_eval_of_a_split_that_is_not_there(run_of: Path, capsys: Capture, folder: Path) -> None:
    expected = ["done: no split 'tset' (did you mean 'test'?)"]
    refused(lambda: called(capsys, "eval", run_of, "--split", "tset"), folder, expected)


def test_a_run_is_not_overwritten(run_of: Path, capsys: Capture, folder: Path) -> None:
    expected = ["done: a run is there already; mtl run --resume done, or another --out"]
    refused(lambda: called(capsys, "run", "t.yaml", "--out", "done"), folder, expected)
    (folder / "full").mkdir()
    (folder / "full" / "x").touch()
    expected = ["full: the folder is not empty; give another --out"]
    refused(lambda: called(capsys, "run", "t.yaml", "--out", "full"), folder, expected)


def test_a_finished_run_is_left_alone(run_of: Path, capsys: Capture, folder: Path) -> None:  # K15
    before = contents(folder)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    done = called(capsys, "run", "--resume", run_of)
    assert (done.returncode, done.stdout) == (OK, "")
    assert done.stderr == "warning: done: already finished at step 4\n"
    done = called(capsys, "run", "t.yaml", "--resume", "auto", "--out", run_of)
    assert (done.returncode, done.stderr) == (OK, "warning: done: already finished at step 4\n")
    assert contents(folder) == before
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == times


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("train.batch_size=10", "train.batch_size 20 -> 10"),
        ("seed=1", "seed 0 -> 1"),
        ("optimizer={kind: adam, lr: 0.1}", "optimizer.kind 'sgd' -> 'adam'; "),
        ("~tasks.b", "tasks.b.kind 'multiclass' -> None; "),
        ("model.sharing.granularity=channel", "model.sharing.granularity 'scalar' -> 'channel'"),
    ],
)
def test_a_run_goes_on_with_its_own_recipe(
    override: str, named: str, run_of: Path, capsys: Capture, folder: Path
) -> None:  # K13
    expected = [f"done: cannot resume: these keys changed: {named} ... ; start a new run"]
    if not override.startswith(("~", "optimizer")):
        expected = [f"done: cannot resume: these keys changed: {named}; start a new run"]
    refused(lambda: called(capsys, "run", "--resume", run_of, override), folder, expected)


def test_resume_auto_with_another_recipe(run_of: Path, capsys: Capture, folder: Path) -> None:  # K13
    """The same command after an edit of the recipe must not go on as if nothing had changed."""
    (folder / "t.yaml").write_text(TINY.replace("lr: 0.1", "lr: 0.2"), encoding="utf-8")
    expected = ["done: cannot resume: these keys changed: optimizer.lr 0.1 -> 0.2; start a new run"]
    command = ["run", "t.yaml", "--resume", "auto", "--out", run_of]
    refused(lambda: called(capsys, *command), folder, expected)


def test_resume_auto_starts_where_there_is_no_run(capsys: Capture, folder: Path) -> None:
    command = ["run", "t.yaml", "train.epochs=1", "--quiet", "--resume", "auto", "--out", "new"]
    good(called(capsys, *command))
    assert json.loads((folder / "new" / "run.json").read_text())["status"] == "finished"


@pytest.mark.parametrize("name", ["nosuch", "empty", "t.yaml", "text"])
def test_resume_of_no_run(name: str, capsys: Capture, folder: Path) -> None:  # K1
    (folder / "empty").mkdir()
    (folder / "text").mkdir()
    (folder / "text" / "run.json").write_text("{}", encoding="utf-8")
    expected = {"text": "text/run.json: ", "t.yaml": "t.yaml"}.get(name, f"{name}: no checkpoint found")
    refused(lambda: called(capsys, "run", "--resume", name), folder, [expected])


def test_runs(run_of: Path, capsys: Capture, folder: Path) -> None:
    (folder / "empty").mkdir()
    assert good(called(capsys, "runs")) == "no runs below runs; mtl runs DIR looks elsewhere\n"
    assert good(called(capsys, "runs", "empty")) == "no runs below empty\n"
    (folder / "runs" / "tiny").mkdir(parents=True)
    shutil.copytree(run_of, folder / "runs" / "tiny" / "1")
    (folder / "runs" / "broken").mkdir()
    (folder / "runs" / "broken" / "run.json").write_text("{", encoding="utf-8")
    mean = json.loads((run_of / "run.json").read_text())["results"]["test/mean/accuracy"]
    done = called(capsys, "runs")
    assert done.stderr.startswith("warning: runs/broken/run.json: cannot be read: ")
    head, _, row = done.stdout.splitlines()
    assert head.split() == ["run", "recipe", "status", "step", "test", "mean"]
    assert row.split() == ["runs/tiny/1", "tiny", "finished", "4", "accuracy", f"{mean:.4f}"]


def test_a_stopped_run_can_go_on(run_mtl: Callable[..., Done], folder: Path) -> None:
    """SIGTERM: 143, one line, a record that says so, and `--resume` runs it to its end."""
    command = [sys.executable, "-m", "mtl", "run", "synthetic_stitch", "--out", "out", "train.epochs=2000"]
    command += ["data.source.rows=400", "data.source.test_rows=40", "train.threads=1", "train.device=cpu"]
    child = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    end = monotonic() + 60
    while not list(folder.glob("out/checkpoints/step-*/manifest.json")):
        assert child.poll() is None
        assert monotonic() < end
        sleep(0.05)
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=60)
    assert child.returncode == TERMINATED
    *_, advice, last = filter(None, err.splitlines())
    assert last == "interrupted"
    assert re.fullmatch(
        r"warning: stopped at step \d+, which is saved; `mtl run --resume out` goes on", advice
    )
    record = json.loads((folder / "out" / "run.json").read_text())
    assert record["status"] == "interrupted"
    assert record["step"] > 0
    out = run_mtl("runs", ".", cwd=folder).stdout
    assert out.splitlines()[2].split()[:3] == ["out", "synthetic_stitch", "interrupted"]


def test_a_stopped_run_goes_on_to_its_end(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtl.commands.watch import TrainingConsole

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingConsole, "_epoch_ended", stop)
        assert called(capsys, "run", "t.yaml", "--out", "out").returncode == INTERRUPTED
    assert json.loads((folder / "out" / "run.json").read_text())["status"] == "interrupted"
    out = good(called(capsys, "run", "--resume", "out"))
    assert "resuming after epoch 1 (step 2)" in out
    assert "epoch 2/2" in out
    assert json.loads((folder / "out" / "run.json").read_text())["status"] == "finished"


def test_one_run_is_held_by_one_process(run_of: Path, capsys: Capture, folder: Path) -> None:  # K16
    from mtl.runs.folder import RunFolder

    holder = RunFolder.open(run_of)
    holder.record.status = "interrupted"
    holder.save_record()
    holder.hold()
    try:
        expected = [f"done: is in use by pid {os.getpid()} on host "]
        refused(lambda: called(capsys, "run", "--resume", run_of), folder, expected)
    finally:
        holder.release()
    assert called(capsys, "run", "--resume", run_of).returncode == OK
    assert json.loads((folder / "done" / "run.json").read_text())["status"] == "finished"


# --- recipes that no batch fits, and signals ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "batch_size"), [(9, 1), (1, 8)], ids=["batches of one row", "one training row"]
)
def test_a_batch_of_one_row(rows: int, batch_size: int, capsys: Capture, folder: Path) -> None:  # D45
    rows_of_table = ["u,v,part", *(f"{i},{2 * i},train" for i in range(rows)), "3,1,test", "4,5,test"]
    (folder / "t.csv").write_text("\n".join(rows_of_table) + "\n", encoding="utf-8")
    regression = {"kind": "regression", "target": "v", "metrics": ["rmse"]}
    write(folder, **around(table("t.csv", "u"), regression, {"column": "part"}), train__batch_size=batch_size)
    what = "train.batch_size: a batch of one row cannot be normalized over the batch"
    expected = [f"r.yaml:9: ... {what}; take model.backbone.norm.kind: layer or none, or batches of more"]
    refused(lambda: called(capsys, "run", "r.yaml"), folder, expected)
    assert called(capsys, "run", "r.yaml", "model.backbone.norm={kind: layer}").returncode == OK


def test_a_metric_without_a_direction_selects_nothing(capsys: Capture, folder: Path) -> None:
    (folder / "t.csv").write_text("u,v\n" + "".join(f"{i},{i * i}\n" for i in range(40)), encoding="utf-8")
    regression = {"kind": "regression", "target": "v", "metrics": ["rmse", "bias"]}
    stopping = {"metric": "validation/a/bias"}
    splits = {"validation": 0.2, "test": 0.2}
    write(folder, **around(table("t.csv", "u"), regression, splits), train__early_stopping=stopping)
    expected = ["r.yaml:9: ... train.early_stopping.metric: unknown metric 'bias'; a has: loss, rmse"]
    refused(lambda: called(capsys, "run", "r.yaml"), folder, expected)


def test_nohup_is_respected(folder: Path) -> None:
    """A hang-up that is ignored from the start, as under nohup, stays ignored while a run trains."""
    program = (
        "import os, signal, sys\n"
        "from mtl.cli import main\n"
        "from mtl.commands.watch import TrainingConsole\n"
        "from mtl.report import plots\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "hung_up = []\n"
        "def stepped(*_):\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    hung_up.append(1)\n"
        "TrainingConsole._stepped = stepped\n"
        "plots.plot_run = lambda *_: []\n"
        "code = main(['run', 't.yaml', '--out', 'out', '--quiet'])\n"
        "assert hung_up\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (OK, "")
    assert json.loads((folder / "out/run.json").read_text())["status"] == "finished"

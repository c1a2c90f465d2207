"""The commands as a user starts them: what they print, what they leave behind, and how they end."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep

import click
import pytest

from mtl import __version__, cli
from mtl.commands import outcomes, recipes
from mtl.errors import BUG, ENVIRONMENT, INTERRUPTED, OK, TERMINATED, NotFinite, Terminated
from mtl.recipe.load import built_in_names, load_recipe
from mtl.recipe.specs import FAMILIES
from tests.test_errors import Capture, Done, called, contents, plugins_undone, refused

ROOT = Path(__file__).parents[1]
COMMANDS = ["run", "validate", "ls", "show", "cp", "summary", "eval", "runs", "checkpoints", "schema"]
COMMANDS += ["predict", "init", "doctor"]
TINY = """\
schema_version: 1
name: tiny
data: {source: {kind: synthetic, tasks: 2, rows: 40, test_rows: 10, features: 16}}
tasks:
  a: {kind: multiclass, target: task0}
  b: {kind: multiclass, target: task1}
model:
  backbone: {kind: layers, stages: [{name: fc1, kind: linear, features: 4}]}
  sharing: {kind: cross_stitch, after: [fc1]}
optimizer: {kind: sgd, lr: 0.1}
train: {epochs: 2, batch_size: 20, threads: 1, device: cpu}
"""
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
    *("alpha.jsonl", ".lock"),
}
STEP_FILES = {
    "model.safetensors",
    "optim.safetensors",
    "weighting.safetensors",
    "state.json",
    "manifest.json",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory with the recipe t.yaml."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    (work / "t.yaml").write_text(TINY, encoding="utf-8")
    with plugins_undone():
        yield work


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """`mtl run t.yaml` in a process of its own; `finished.args` is its run folder."""
    place = tmp_path_factory.mktemp("finished")
    (place / "t.yaml").write_text(TINY, encoding="utf-8")
    command = [sys.executable, "-m", "mtl", "run", "t.yaml", "--out", "done"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    done.args = place / "done"
    return done


@pytest.fixture
def run_of(finished: Done, folder: Path) -> Path:
    """A copy of that finished run."""
    shutil.copytree(finished.args, folder / "done")
    return Path("done")


def good(done: Done) -> str:
    assert done.stderr == ""
    assert done.returncode == OK
    return str(done.stdout)


# --- help, lists, texts ---


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


def test_no_command_at_all_shows_the_help(capsys: Capture) -> None:
    done = called(capsys)
    assert done.returncode in (OK, 2)
    assert "Commands:" in done.stdout + done.stderr or "mtl --help" in done.stderr


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


def test_ls(capsys: Capture) -> None:
    out = good(called(capsys, "ls"))
    names = [line.split()[0] for line in out.splitlines()[2:]]
    assert names == list(built_in_names())
    assert all(len(line.split()) > 3 for line in out.splitlines()[2:])
    assert good(called(capsys, "ls", "recipes")) == good(called(capsys, "ls", "recipe")) == out


@pytest.mark.parametrize("family", FAMILIES)
def test_ls_family(family: str, capsys: Capture) -> None:
    out = good(called(capsys, "ls", family))
    names = [line.split()[0] for line in out.splitlines()[2:]]
    assert names == list(FAMILIES[family].names())
    plurals = {"sharing": "sharing"}
    assert good(called(capsys, "ls", plurals.get(family, family + "s"))) == out


def test_schema(capsys: Capture) -> None:
    out = good(called(capsys, "schema"))
    assert out == (ROOT / "recipes" / "recipe.schema.json").read_text(encoding="utf-8")
    json.loads(out)


@pytest.mark.parametrize("name", ["fashion_three_tasks", "synthetic_stitch", "t.yaml"])
def test_show_is_the_same_recipe(name: str, capsys: Capture) -> None:
    out = good(called(capsys, "show", name, "train.batch_size=7"))
    Path("shown.yaml").write_text(out, encoding="utf-8")
    assert "base:" not in out
    shown, given = load_recipe("shown.yaml"), load_recipe(name, ["train.batch_size=7"])
    assert shown.plain() == given.plain()
    assert shown.sha256() == given.sha256()
    assert shown.train.batch_size == 7


@pytest.mark.parametrize("name", built_in_names())
def test_a_copy_validates_beside_its_schema(name: str, capsys: Capture, folder: Path) -> None:
    out = good(called(capsys, "cp", name))
    assert out == f"{name}.yaml (schema: recipe.schema.json)\n"
    assert (folder / f"{name}.yaml").read_bytes() == (ROOT / "recipes" / f"{name}.yaml").read_bytes()
    assert (folder / "recipe.schema.json").read_bytes() == (ROOT / "recipes/recipe.schema.json").read_bytes()
    assert good(called(capsys, "validate", f"{name}.yaml")).startswith(f"ok {name}.yaml: ")


def test_cp_overwrites_nothing_unasked(capsys: Capture, folder: Path) -> None:
    (folder / "mine.yaml").write_text("mine", encoding="utf-8")
    expected = ["mine.yaml: is there already; give another name, or --force"]
    refused(lambda: called(capsys, "cp", "fashion_fast", "mine.yaml"), folder, expected)
    good(called(capsys, "cp", "fashion_fast", "mine.yaml", "--force"))
    assert load_recipe("mine.yaml").name == "fashion_fast"
    (folder / "sub").mkdir()
    good(called(capsys, "cp", "fashion_fast", "sub"))
    assert {path.name for path in (folder / "sub").iterdir()} == {"fashion_fast.yaml", "recipe.schema.json"}


@pytest.mark.parametrize("target", ["no/such/folder/x.yaml", "t.yaml/x.yaml", "a" * 300])
def test_cp_to_where_it_cannot_write(target: str, capsys: Capture, folder: Path) -> None:
    refused(lambda: called(capsys, "cp", "fashion_fast", target), folder, [": "], code=ENVIRONMENT)


def test_cp_of_nothing(capsys: Capture, folder: Path) -> None:
    refused(lambda: called(capsys, "cp", "t.yam"), folder, ["no such file"])
    refused(lambda: called(capsys, "cp", "u.yaml"), folder, ["u.yaml: no such file"])


def test_validate(capsys: Capture) -> None:
    out = good(called(capsys, "validate", "t.yaml", "fashion_stitch", "train.epochs=1"))
    assert out.splitlines() == [
        "ok t.yaml: 2 tasks, 2 towers, 168 parameters",
        "ok fashion_stitch: 2 tasks, 2 towers, 6,477,798 parameters",
    ]


def test_summary(capsys: Capture) -> None:
    assert "the stitches hold 12 parameters" in good(called(capsys, "summary", "fashion_stitch"))
    dense = good(called(capsys, "summary", "fashion_stitch", "model.sharing.granularity=dense"))
    assert "the stitches hold 200,884,224 parameters" in dense


# --- the command line's own errors ---


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("rnu", "mtl: no command 'rnu' (did you mean 'run'?)"),
        ("'a\x1bb'", "mtl: no command \"'a\\x1bb'\""),
        ("run", "mtl run: a recipe is missing"),
        ("run --dry-run", "mtl run: a recipe is missing"),
        ("run t.yaml --devise cpu", "mtl run: No such option '--devise' ... '--device'"),
        ("run t.yaml --out", "mtl ... Option '--out' requires an argument"),
        ("run t.yaml b", "command line: 'b' is not an override; write key.sub=value"),
        ("run --resume auto", "--resume auto: needs the folder of the run; add --out DIR"),
        ("run --resume x --out y", "--resume: a run goes on in its own folder; leave out --out 'y'"),
        ("run t.yaml --resume x", "--resume: a run has its own recipe; leave out 't.yaml'"),
        ("run t.yaml --device cpuu", "command line: train.device: ... got 'cpuu'"),
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


# --- how it ends ---


def test_a_bug_of_ours(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object) -> None:
        raise IndexError("list index\nout of range")

    monkeypatch.setattr(recipes, "summarize_recipe", breaks)
    done = called(capsys, "summary", "t.yaml")
    assert (done.returncode, done.stdout) == (BUG, "")
    (line,) = done.stderr.splitlines()
    match = re.fullmatch(
        r"error: a bug in mtl: IndexError: 'list index\\nout of range'; traceback in (.+\.txt)", line
    )
    assert match
    saved = Path(match[1])
    assert saved.read_text(encoding="utf-8").startswith("Traceback (most recent call last)")
    assert "breaks" in saved.read_text(encoding="utf-8")
    saved.unlink()


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), INTERRUPTED, "interrupted"),
        (click.Abort(), INTERRUPTED, "interrupted"),
        (Terminated(), TERMINATED, "interrupted"),
        (MemoryError(), ENVIRONMENT, "error: not enough memory; lower train.batch_size or the model's size"),
        (OSError(28, "No space left on device", "a/b"), ENVIRONMENT, "error: 'a/b': no space left on device"),
        (OSError(5, "Input/output error"), ENVIRONMENT, "error: mtl: input/output error"),
        (NotFinite("", "task 'a': loss is nan at step 57"), 4, "error: task 'a': loss is nan at step 57"),
    ],
)
def test_exit_codes(
    error: BaseException,
    code: int,
    line: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def breaks(*_: object) -> None:
        raise error

    monkeypatch.setattr(recipes, "summarize_recipe", breaks)
    monkeypatch.setattr(outcomes, "mute", lambda stream: None)  # it would mute pytest
    done = called(capfd, "summary", "t.yaml")
    assert done.returncode == code
    (said,) = done.stderr.split("\n")[-2:-1]
    assert said.startswith(line)
    assert done.stderr in (f"{said}\n", f"\n{said}\n")  # after ^C
    assert done.stdout == ""


@pytest.mark.parametrize("arguments", [["--debug", "validate", "sed=1"], ["validate", "--debug", "sed=1"]])
def test_debug_shows_the_traceback(arguments: list[str], capsys: Capture) -> None:
    done = called(capsys, *arguments, "t.yaml")
    assert done.returncode == 2
    assert done.stderr.startswith("Traceback (most recent call last)")
    assert done.stderr.splitlines()[-1].startswith("error: command line: sed: unknown key 'sed'")


def shell(command: str, **environment: str) -> Done:
    mtl = f"'{sys.executable}' -m mtl"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command.replace("MTL", mtl)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("arguments", ["ls", "--help", "show fashion_stitch"])
@pytest.mark.parametrize("to", ["| head -0", ">&-", "| head -1 > /dev/null"])
def test_nobody_reads_on(arguments: str, to: str) -> None:  # C8
    done = shell(f"MTL {arguments} {to}")
    assert (done.returncode, done.stderr) == (OK, "")


def test_a_run_goes_on_when_nobody_reads_on(folder: Path) -> None:  # C8
    done = shell("MTL run t.yaml --out out | head -0")
    assert (done.returncode, done.stderr) == (OK, "")
    assert json.loads((folder / "out" / "run.json").read_text())["status"] == "finished"


def test_stderr_is_closed_too() -> None:
    assert shell("MTL rnu 2>&-").returncode == 2
    assert shell("MTL rnu 2>&1 | head -0").returncode == 2


def test_stdout_is_full() -> None:
    done = shell("MTL schema > /dev/full")
    assert (done.returncode, done.stderr) == (ENVIRONMENT, "error: mtl: no space left on device\n")


def test_a_small_and_simple_terminal(folder: Path, capsys: Capture) -> None:  # C8
    (folder / "t.yaml").write_text(TINY + "description: größe\n", encoding="utf-8")
    done = shell("MTL show t.yaml; MTL rnu", LANG="C", LC_ALL="C", COLUMNS="1", TERM="dumb")
    Path("shown.yaml").write_text(done.stdout, encoding="utf-8")
    assert load_recipe("shown.yaml").sha256() == load_recipe("t.yaml").sha256()
    assert done.stderr == "error: mtl: no command 'rnu' (did you mean 'run'?); mtl --help lists them\n"


# --- run, eval, runs ---


def test_dry_run_writes_nothing(capsys: Capture, folder: Path) -> None:
    before = contents(folder)
    out = good(called(capsys, "run", "t.yaml", "--dry-run"))
    assert out == good(called(capsys, "summary", "t.yaml"))
    assert contents(folder) == before


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
    assert len((run / "alpha.jsonl").read_text().splitlines()) == 3


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
    assert lines[-1].endswith("; run done")


def test_the_shipped_example_runs(capsys: Capture, folder: Path) -> None:
    overrides = ["data.source.rows=400", "data.source.test_rows=100", "train.epochs=1", "train.threads=1"]
    done = called(capsys, "run", "synthetic_stitch", "--quiet", *overrides)
    assert done.returncode == OK
    (run,) = (folder / "runs" / "synthetic_stitch").iterdir()
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{4}", run.name)
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:7]] == ["test", "------", "first", "second", "scarce", "mean"]
    assert "epoch 1/1" not in done.stdout
    assert lines[-1].endswith(f"run {run.relative_to(folder)}")


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
    assert good(called(capsys, "runs")) == "no runs below runs\n"
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


# --- checkpoints, and what goes on from them ----------------------------------------------------------------


def test_checkpoints(run_of: Path, capsys: Capture, folder: Path) -> None:
    head, _, *rows = good(called(capsys, "checkpoints", run_of)).splitlines()
    assert head.split() == ["checkpoint", "state", "made", "MB"]
    made = [
        json.loads(path.read_text())["created"] for path in sorted(run_of.glob("checkpoints/*/manifest.json"))
    ]
    sizes = [
        sum(path.stat().st_size for path in step.iterdir())
        for step in sorted(run_of.glob("checkpoints/step-*"))
    ]
    assert [row.split() for row in rows] == [
        ["step-00000002", "whole", made[0], f"{sizes[0] / 2**20:.2f}"],
        ["step-00000004", "whole,", "selected", made[1], f"{sizes[1] / 2**20:.2f}"],
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


# --- the machine, and recipes that no batch fits ------------------------------------------------------------


def test_the_oldest_torch_is_that_of_the_package() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'"torch>={outcomes.OLDEST_TORCH}"' in text
    named = set(re.findall(r'^    "([a-z]+)[><=]', text, re.MULTILINE))
    assert set(outcomes.PACKAGES.values()) <= named


@pytest.mark.parametrize(
    ("found", "line"),
    [
        ("2.9.1+cpu", "mtl: torch 2.9.1+cpu is too old, 2.10 is needed; pip install -U 'torch>=2.10'"),
        ("1.13", "mtl: torch 1.13 is too old, 2.10 is needed; pip install -U 'torch>=2.10'"),
        (None, "mtl: torch is not installed; pip install 'torch>=2.10'"),
    ],
)
def test_torch_is_missing_or_too_old(
    found: str | None, line: str, capsys: Capture, folder: Path, monkeypatch: pytest.MonkeyPatch, run_of: Path
) -> None:  # C6
    def version(package: str) -> str:
        if found is None:
            raise outcomes.PackageNotFoundError(package)
        return found

    monkeypatch.setattr(outcomes, "version", version)
    commands = [["run", "t.yaml"], ["validate", "t.yaml"], ["summary", "t.yaml"], ["eval", "done"]]
    commands += [["run", "--resume", "done"], ["predict", "done", "--input", "x.csv", "--output", "y.csv"]]
    for command in commands:
        refused(lambda command=command: called(capsys, *command), folder, [line], code=ENVIRONMENT)  # type: ignore[misc]


@pytest.mark.parametrize("found", ["2.10", "2.10.0+cu128", "2.13.1", "3.0"])
def test_a_torch_that_will_do(found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "version", lambda package: found)
    outcomes.require_torch()


def test_a_package_is_missing(capsys: Capture, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # C6
    def breaks(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'PIL'", name="PIL.Image")

    monkeypatch.setattr(recipes, "summarize_recipe", breaks)
    expected = ["mtl: pillow is not installed; pip install pillow"]
    refused(lambda: called(capsys, "summary", "t.yaml"), folder, expected, code=ENVIRONMENT)


@pytest.mark.parametrize(
    ("rows", "batch_size"), [(9, 1), (1, 8)], ids=["batches of one row", "one training row"]
)
def test_a_batch_of_one_row(rows: int, batch_size: int, capsys: Capture, folder: Path) -> None:  # D45
    table = ["u,v,part", *(f"{i},{2 * i},train" for i in range(rows)), "3,1,test", "4,5,test"]
    (folder / "t.csv").write_text("\n".join(table) + "\n", encoding="utf-8")
    (folder / "r.yaml").write_text(
        "schema_version: 1\nname: r\n"
        "data: {source: {kind: table, path: t.csv, inputs: {numeric: [u]}}, split: {column: part}}\n"
        "tasks: {v: {kind: regression, target: v, metrics: [rmse]}}\n"
        "model: {backbone: {kind: layers, stages: [{name: fc1, kind: linear, features: 4}]}}\n"
        f"optimizer: {{kind: sgd, lr: 0.1}}\ntrain: {{epochs: 1, batch_size: {batch_size}}}\n",
        encoding="utf-8",
    )
    what = "train.batch_size: a batch of one row cannot be normalized over the batch"
    expected = [f"r.yaml:7: ... {what}; take model.backbone.norm.kind: layer or none, or batches of more"]
    refused(lambda: called(capsys, "run", "r.yaml"), folder, expected)
    assert called(capsys, "run", "r.yaml", "model.backbone.norm={kind: layer}").returncode == OK


def test_a_metric_without_a_direction_selects_nothing(capsys: Capture, folder: Path) -> None:
    (folder / "t.csv").write_text("u,v\n" + "".join(f"{i},{i * i}\n" for i in range(40)), encoding="utf-8")
    (folder / "r.yaml").write_text(
        "schema_version: 1\nname: r\ndata:\n"
        "  source: {kind: table, path: t.csv, inputs: {numeric: [u]}}\n  split: {validation: 0.2, test: 0.2}\n"
        "tasks: {v: {kind: regression, target: v, metrics: [rmse, bias]}}\n"
        "model: {backbone: {kind: layers, stages: [{name: fc1, kind: linear, features: 4}]}}\n"
        "optimizer: {kind: sgd, lr: 0.1}\n"
        "train: {epochs: 1, early_stopping: {metric: validation/v/bias}}\n",
        encoding="utf-8",
    )
    expected = ["r.yaml:9: ... train.early_stopping.metric: unknown metric 'bias'; v has: loss, rmse"]
    refused(lambda: called(capsys, "run", "r.yaml"), folder, expected)


def test_nohup_is_respected(folder: Path) -> None:
    """A hang-up that is ignored from the start, as under nohup, stays ignored while a run trains."""
    program = (
        "import os, signal, sys\n"
        "from mtl import experiment\n"
        "from mtl.cli import main\n"
        "from mtl.commands.watch import TrainingConsole\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "hung_up = []\n"
        "def stepped(*_):\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    hung_up.append(1)\n"
        "TrainingConsole._stepped = stepped\n"
        "experiment.plot_run = lambda *_: []\n"
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

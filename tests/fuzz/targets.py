"""What is fuzzed: for each reader a few good inputs, and how it reads one. Heavy imports stay inside functions."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import shutil
import signal
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.fuzz.mutation import changed_parts

Read = Callable[[bytes], object]


@dataclass(frozen=True)
class Target:
    """Good inputs; pieces that mutations put into them; and what reads one, in the folder it is given."""

    corpus: Sequence[bytes]
    tokens: Sequence[bytes]
    read: Read


def recipes() -> list[bytes]:
    root = Path(__file__).parents[2] / "recipes"
    names = ("fashion_stitch", "fashion_three_tasks", "age_gender_stitch", "synthetic_stitch")
    return [(root / f"{name}.yaml").read_bytes() for name in names]


RECIPE_TOKENS = tuple(
    text.encode()
    for text in (
        "\ntask_defaults: {kind: binary}\n", "\nbase: fashion_stitch\n", "\nbase: r.yaml\n", "\ntasks: {}\n",
        '"t*": {}', "kind: ", "target: label", "groups: {a: [1]}", "  ", "\n", "%YAML 1.2\n---\n", "\n---\n", "? ",
        "| \n", "!!set", "plugins: [x]", "1:30", "0x1F", "yes", "~", ".inf", "source: {kind: table, path: r.yaml}",
        "source: {kind: npz, path: /dev/zero}",
    )
)  # fmt: skip


def recipe_text(folder: Path) -> Target:
    from mtl.recipe.text.yaml import read_bytes

    return Target(recipes(), RECIPE_TOKENS, lambda data: read_bytes(data, "r.yaml"))


def recipe(folder: Path) -> Target:
    from mtl.recipe.load import load_recipe

    def read(data: bytes) -> None:
        (folder / "r.yaml").write_bytes(data)
        load_recipe("r.yaml")

    return Target(recipes(), RECIPE_TOKENS, read)


def override(folder: Path) -> Target:
    from mtl.recipe.load import load_recipe

    corpus = [
        b"optimizer.lr=1e-3",
        b"~model.sharing",
        b"train.epochs=3",
        b"tasks.garment.weight=2",
        b"data={a: [1, {b: c}]}",
    ]

    def read(data: bytes) -> None:
        load_recipe("fashion_fast", [data.decode("utf-8", "surrogateescape")])

    return Target(corpus, (b"=", b".", b"~", b"tasks.*.weight", b"stages.0", *RECIPE_TOKENS), read)


def idx(folder: Path) -> Target:
    from mtl.data.files import idx

    plain = idx.write(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    corpus = [plain, gzip.compress(plain), idx.write(np.arange(9, dtype=np.uint8))]
    return Target(
        corpus, (plain[:8], corpus[1][:10]), lambda data: idx.parse(idx.read(io.BytesIO(data), "x.gz"))
    )


def npz(folder: Path) -> Target:
    from mtl.data.files.npz import archive
    from mtl.data.files.npz_stream import stream

    corpus = []
    for save in (np.savez, np.savez_compressed):
        out = io.BytesIO()
        save(out, x=np.eye(3), label=np.array(["a", "b", "c"]), f=np.asfortranarray(np.ones((3, 2), ">f4")))
        corpus.append(out.getvalue())
    out = io.BytesIO()
    np.save(out, np.eye(3))
    path = folder / "x.npz"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        opened = archive(path)
        there = list(opened.headers)
        opened.arrays(there)
        if there:
            list(stream(opened, there, 2))

    headers = (
        b"\x93NUMPY\x01\0",
        b"'|O'",
        b"'descr': '''",
        b"(3, 3), }",
        b"PK\x03\x04",
        b"PK\x01\x02",
        b"PK\x05\x06",
        b"PK\x06\x06",
    )
    return Target([*corpus, out.getvalue()], headers, read)


def npy_header(folder: Path) -> Target:
    """The header of an array alone, in an archive that is otherwise sound: sizes and checksums are put right."""
    import zipfile

    from mtl.data.files.npz import archive

    texts = [
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (3, 3), }",
        b"{'descr': '<U4', 'fortran_order': True, 'shape': (9L,), }",
        b"{'descr': [('a', '<i4'), ('b', '|O')], 'fortran_order': False, 'shape': (4,), }",
    ]
    path = folder / "x.npz"

    def read(data: bytes) -> None:
        version = b"\x01\0" if len(data) % 2 else b"\x02\0"
        length = (
            len(data).to_bytes(2 if len(data) % 2 else 4, "little") if len(data) < 60_000 else b"\xff\xff"
        )
        with zipfile.ZipFile(path, "w") as written:
            written.writestr("x.npy", b"\x93NUMPY" + version + length + data + bytes(72))
        opened = archive(path)
        opened.arrays(list(opened.headers))

    return Target(
        texts,
        (b"'", b"'''", b"__import__('os')", b"\\N{x}", b"1e9", b"9" * 19, b"#", b"\\\n", b"1j", b"b''"),
        read,
    )


def csv(folder: Path) -> Target:
    from mtl.data.files.table import TableFile

    text = b'id,x,"y,z",label\n1,0.5,"a ""b""",cat\n2,,\xc3\xa9,dog\n3,-1e3,"two\nlines",cat\n'
    corpus = [text, text.replace(b",", b";"), text.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + text]
    path = folder / "t.csv"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        _all_columns(TableFile(path))

    return Target(
        corpus, (b'""', b"\r\n", b";", b"\t", b"a,b,c\n", b'"\n', b"\x1f\x8b", b"PAR1", b"x" * 3000), read
    )


def parquet(folder: Path) -> Target:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from mtl.data.files.table import TableFile

    table = pa.table({
        "x": pa.array([0.5, None, 3.0]), "label": ["cat", "dog", None], "v": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
        "c": pa.array(["a", "b", "a"]).dictionary_encode(), "t": pa.array([1, 2, 3], pa.timestamp("s")), "n": [1, 2, 3],
    })  # fmt: skip
    corpus = []
    for options in (
        {},
        {"compression": "none", "use_dictionary": False},
        {"compression": "gzip", "version": "1.0"},
    ):
        out = io.BytesIO()
        pq.write_table(table, out, **options)
        corpus.append(out.getvalue())
    path = folder / "t.parquet"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        _all_columns(TableFile(path))

    return Target(corpus, (b"PAR1", b"\x15\x02\x19", b"\x19\x1c"), read)


def _all_columns(table: object) -> None:
    from mtl.data.columns.numbers import numbers
    from mtl.data.columns.times import times
    from mtl.data.columns.values import texts, vectors
    from mtl.data.files.column_types import type_name
    from mtl.data.files.table import TableFile

    assert isinstance(table, TableFile)
    readers = {"list": lambda *a: vectors(*a, None), "time": times, "text": texts}
    table.check()
    for first, batch in table.batches(table.column_names):
        for name, array in zip(batch.schema.names, batch.columns, strict=True):
            readers.get(type_name(array.type), numbers)(table, name, first, array)


def image(folder: Path) -> Target:
    from PIL import Image

    from mtl.data.files.images import read_images

    corpus = []
    for mode, kind in (("RGB", "PNG"), ("L", "PNG"), ("RGB", "JPEG"), ("P", "PNG")):
        out = io.BytesIO()
        Image.new(mode, (9, 7), 5).save(out, kind)
        corpus.append(out.getvalue())
    path = folder / "i.png"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        read_images(["i.png"], root=folder, size=(4, 4), mode="rgb", place=lambda row: f"t.csv:row {row + 2}")

    return Target(
        corpus,
        (b"IHDR", b"IDAT", b"acTL", b"iCCP", b"zTXt", b"PLTE", b"tRNS", b"\xff\xd8", b"\xff\xe1Exif"),
        read,
    )


def manifest(folder: Path) -> Target:
    from mtl.runs import checkpoint
    from mtl.runs.listing import listed
    from tests.support.small_run import make_small_run

    path = make_small_run(folder / "run") / "checkpoints" / "step-00000004"
    corpus = [(path / checkpoint.MANIFEST).read_bytes(), (path / "state.json").read_bytes()]

    def read(data: bytes) -> None:
        (path / checkpoint.MANIFEST).write_bytes(data)
        listed(path.parent)
        checkpoint.verified(path)

    return Target(
        corpus,
        (b'"files"', b'"bytes": 1', b'"step": 4', b'"../../x"', b'"schema_version": 3', b"{" * 500),
        read,
    )


def _read_run(folder: Path) -> None:
    """All that a command reads of a run before it trains: the list, its recipe, its model and what was logged."""
    from mtl.commands.runs import _row_of
    from mtl.inference.predict import load
    from mtl.runs.folder import RunFolder
    from mtl.runs.listing import list_runs

    for run in list_runs(folder):
        _row_of(run)
    model = load(folder)
    run = RunFolder.open(folder)
    run.logs.rows()
    run.logs.rows("sharing.jsonl")
    assert model.header.input_shape


def record(folder: Path) -> Target:
    from tests.support.small_run import make_small_run

    make_small_run(folder)

    def read(data: bytes) -> None:
        (folder / "run.json").write_bytes(data)
        _read_run(folder)

    return Target(
        [(folder / "run.json").read_bytes()], (b'"status"', b'"resolved_sha256": 1', b"[" * 2000), read
    )


def record_parts(folder: Path) -> Target:
    """Sound JSON: each input is the seed of some changes to parts of a record, however deep they lie."""
    from tests.support.small_run import make_small_run

    make_small_run(folder)
    whole = json.loads((folder / "run.json").read_bytes())
    whole |= {
        "status": "finished", "selected": {"step": 8, "epoch": 2}, "results": {"test/mean/accuracy": 0.5},
        "changes": [{"step": 4, "changed": ["train.epochs 1 -> 2"]}], "decisions": {"a": {"threshold": [0.5]}},
        "resolved_sha256": [], "plugin_sha256": {}, "stopped_early": False, "skipped_steps": 0,
    }  # fmt: skip
    whole["resolved_sha256"] = [hashlib.sha256((folder / "recipe.resolved.yaml").read_bytes()).hexdigest()]

    def read(data: bytes) -> None:
        (folder / "run.json").write_text(json.dumps(changed_parts(whole, data)), encoding="utf-8")
        _read_run(folder)

    return Target([b"", b"1", b"2"], (), read)


def log(folder: Path) -> Target:
    """metrics.jsonl or sharing.jsonl, as the first byte says, and what is written and drawn of it."""
    from mtl.report import plots, sharing_plots
    from mtl.runs.folder import RunFolder
    from tests.support.small_run import make_small_run

    make_small_run(folder)
    logs = ("metrics.jsonl", "sharing.jsonl")
    texts = {name: (folder / name).read_bytes() for name in logs}

    def read(data: bytes) -> None:
        which = logs[data[:1] == b"s"]
        for name in logs:
            (folder / name).write_bytes(data[1:] if name == which else texts[name])
        run = RunFolder.open(folder)
        rows, shared = run.logs.rows(), run.logs.rows("sharing.jsonl")
        run.logs.write_csv(rows)
        if which == "sharing.jsonl" and shared:
            sharing_plots.require_one_form(shared, folder / which)
            sharing_plots.sharing_maps(shared[-1])
            sharing_plots.sharing_paths(shared, plots.abscissa(shared))
        elif rows:
            plots.learning_curves(rows[:9], "loss")

    tokens = (
        b"\n",
        b"{}\n",
        b"[]\n",
        b"null\n",
        b'"x": 1,',
        b'"split": "test"',
        b'"a/b/c": 1e400',
        b"[[1, 2]]",
    )
    return Target([b"m" + texts[logs[0]], b"a" + texts[logs[1]]], tokens, read)


def state(folder: Path) -> Target:
    """The files of a checkpoint whose manifest is sound: whoever wrote it could also write the digests."""
    from mtl.evaluation.meter import Meter
    from mtl.experiment.run import prepare
    from mtl.recipe.load import load_recipe
    from mtl.runs import state
    from mtl.runs.disk import pieces
    from tests.support.listening import epochs_of

    small = ["data.source.rows=400", "data.source.test_rows=50"]
    overrides = [*small, "train.epochs=1", "train.device=cpu", "train.threads=1"]
    trainer, _ = prepare(load_recipe("synthetic_stitch", overrides))
    assert len(list(epochs_of(trainer))) == 1
    trainer.meter = Meter(trainer.modules, trainer.recipe.tasks, trainer.device)
    files = {}
    for name, content in state.capture(trainer, {"metrics.jsonl": 0}).items():
        files[name] = folder / name
        files[name].write_bytes(b"".join(pieces(content)))
    marks = {b"%d" % n: name for n, name in enumerate(files)}

    def read(data: bytes) -> None:
        which = marks.get(data[:1], state.STATE)
        (folder / "mutated").write_bytes(data[1:])
        state.restore(trainer, files | {which: folder / "mutated"})

    corpus = [mark + files[name].read_bytes() for mark, name in marks.items()]
    tokens = (
        b"0",
        b"1",
        b'"F32"',
        b'"shape":[1]',
        b'"data_offsets":[0,8]',
        b'"epoch": -1',
        b'"dtype":"F8_E8M0"',
        b"\xff\xff\xff\x7f",
    )
    return Target(corpus, tokens, read)


def run_folder(folder: Path) -> Target:
    """A whole run: each input is the seed of some changes to it, and of the commands that read it."""
    from mtl.cli import main
    from mtl.errors import ENVIRONMENT, OK, USER, UserError
    from tests.fuzz.run_folders import changed_folder
    from tests.support.small_run import make_small_run

    whole, run = make_small_run(folder / "whole"), folder / "run"
    commands = (
        ["run", "--resume", str(run), "train.epochs=3", "--quiet", "--no-report"],
        *(["eval", str(run)], ["report", str(run)], ["checkpoints", str(run)], ["runs", str(folder)]),
        ["sharing", str(run)],
    )

    def late(number: int, frame: object) -> None:
        raise AssertionError(f"takes more than {HANGS} s")

    def read(data: bytes) -> None:
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(whole, run)
        changed_folder(run, data)
        rng, codes = random.Random(data), []
        before = signal.signal(signal.SIGALRM, late)
        for command in rng.sample(commands, 2) if data else commands:
            out, err = io.StringIO(), io.StringIO()
            signal.alarm(HANGS)
            with redirect_stdout(out), redirect_stderr(err):
                codes.append(main(command))
            signal.alarm(0)
            said = err.getvalue()
            if codes[-1] not in (OK, USER, ENVIRONMENT) or not said.replace("\n", "").isprintable():
                raise AssertionError(f"{command[0]} {codes[-1]}: {said}")
        signal.signal(signal.SIGALRM, before)
        if any(codes):
            raise UserError("run", "refused")

    return Target([b"", b"1", b"2"], (), read)


HANGS = 10
"""Seconds that one command may take."""
TARGETS: dict[str, Callable[[Path], Target]] = {
    make.__name__: make
    for make in (
        recipe_text, recipe, override, idx, npz, npy_header, csv, parquet, image, manifest, record, record_parts,
        log, state, run_folder,
    )
}  # fmt: skip

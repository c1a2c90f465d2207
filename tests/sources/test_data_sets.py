"""A folder, a pattern or an address of Parquet files is a table as any other, in every command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import mtl
from mtl.data.types import Wanted
from mtl.errors import ENVIRONMENT, OK, USER, UserError
from mtl.sources.table import Table
from tests.support import recipes
from tests.support.assertions import Capture, called, refused
from tests.support.object_store import Store, s3, store

__all__ = ["s3", "store"]
N = 240
INPUTS = {"numeric": ["x"], "categorical": ["region"], "dates": []}


def columns_of(n: int, seed: int) -> dict[str, Any]:
    x = np.random.default_rng(seed).standard_normal(n)
    return {"x": x, "label": np.where(x > 0, "yes", "no").tolist(), "id": [f"{seed}-{i}" for i in range(n)]}


def write(rows: Path, seed: int = 0, n: int = N) -> Path:
    """Three files of two regions, with one year."""
    for i, name in enumerate(("year=2024/region=eu/a", "year=2024/region=eu/b", "year=2024/region=us/a")):
        path = rows / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns_of(n // 3, 3 * seed + i)), path)
    return rows


def recipe(folder: Path, path: str, **options: Any) -> Path:
    source = {
        "kind": "table",
        "path": path,
        "inputs": {"numeric": ["x", "year"], "categorical": ["region"]},
        **options,
    }
    task = {"kind": "binary", "target": "label"}
    split = {} if "test" in options else None
    return recipes.write(folder, **recipes.around(source, task, split), train__epochs=2)


def first_recipe() -> tuple[str, str]:
    """The name that `mtl init` gave, and the path that it wrote."""
    found = mtl.load_recipe("r.yaml")
    assert isinstance(found.data.source, Table)
    return found.name, found.data.source.path


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr("mtl.report.plots.plot_run", lambda *_: [])


def run(capsys: Capture, out: str, *more: str) -> dict[str, Any]:
    done = called(capsys, "run", "r.yaml", "--out", out, "--quiet", *more)
    assert done.returncode == OK, done.stderr
    found: dict[str, Any] = json.loads(Path(out, "run.json").read_text(encoding="utf-8"))
    return found


def test_a_data_set_gives_what_its_rows_in_one_file_give(capsys: Capture) -> None:
    """But for the fingerprint."""
    write(Path("rows"))
    whole = pa.Table.from_batches(
        [batch for _, batch in Table(path="rows", inputs={"numeric": ("x",)}).table().batches(
            ["x", "label", "id", "year", "region"])]
    )  # fmt: skip
    pq.write_table(whole, "whole.parquet")
    results = []
    for i, path in enumerate(("rows", "rows/**/[ab].parquet", "whole.parquet")):
        recipe(Path(), path)
        results.append(run(capsys, f"run{i}")["results"])
    assert results[0]["test/a/auroc"] > 0.5
    assert all(found == results[0] for found in results[1:])


def test_every_command_takes_a_data_set(capsys: Capture) -> None:
    write(Path("rows"))
    write(Path("new"), seed=1, n=60)
    assert called(capsys, "init", "rows", "--targets", "label", "-o", "r.yaml").returncode == OK
    assert first_recipe() == ("rows", str(Path("rows").absolute()))
    assert "a look at rows (240 rows)" in Path("r.yaml").read_text(encoding="utf-8")
    assert called(capsys, "validate", "r.yaml").returncode == OK
    run(capsys, "out", "train.epochs=2")
    for given in ("new", "new/**/*.parquet"):
        done = called(
            capsys, "predict", "out", "--input", given, "--output", "p.csv", "--keep", "id,region", "--force"
        )
        assert (done.returncode, done.stdout) == (OK, "p.csv: 60 rows\n"), done.stderr
        assert Path("p.csv").read_text(encoding="utf-8").splitlines()[1].startswith('"3-0","eu",')
    done = called(capsys, "eval", "out", "--data", "new")
    assert done.returncode == OK
    assert done.stderr == ""
    done = called(capsys, "eval", "out", "--data", "rows")
    assert "rows is the file that the run was trained on" in done.stderr
    assert len(mtl.load("out").predict("new")["label"]) == 60


def test_init_of_a_pattern(capsys: Capture) -> None:
    write(Path("rows"))
    done = called(capsys, "init", "rows/**/*.parquet", "--targets", "label", "-o", "r.yaml")
    assert done.returncode == OK, done.stderr
    assert first_recipe() == ("rows", str(Path("rows/**/*.parquet").absolute()))


def test_a_new_file_is_another_fingerprint(capsys: Capture) -> None:
    write(Path("rows"))
    recipe(Path(), "rows")
    run(capsys, "out")
    pq.write_table(pa.table(columns_of(3, 9)), "rows/year=2024/region=us/c.parquet")
    done = called(capsys, "eval", "out")
    assert done.returncode == USER
    assert "data changed since this run began" in done.stderr
    Path("rows/year=2024/region=us/c.parquet").unlink()
    assert called(capsys, "eval", "out").returncode == OK
    Path("rows/year=2024/region=us").rename("rows/year=2024/region=uk")
    assert "data changed since this run began" in called(capsys, "eval", "out").stderr


def test_predictions_are_no_file_of_their_input(capsys: Capture) -> None:
    write(Path("rows"))
    recipe(Path(), "rows")
    run(capsys, "out")
    for given, output in (("rows", "rows/p.csv"), ("rows/*.parquet", "rows/p.parquet")):
        refused(
            lambda given=given, output=output: called(capsys, "predict", "out", "--input", given, "--output", output),
            Path(), [f"--output: '{output}' would be a file of the input; write it elsewhere"],
        )  # fmt: skip


@pytest.mark.parametrize("train", ["rows", "rows/year=2024/region=eu/a.parquet"])
def test_a_file_of_train_is_no_test_file(train: str, capsys: Capture) -> None:
    write(Path("rows"))
    inside = "year=2024/region=eu/*.parquet" if train == "rows" else "year=2024"
    recipe(Path(), train, test=f"rows/{inside}", inputs={"numeric": ["x"]})
    which = "one of the files" if train == "rows" else "the same file as that"
    done = called(capsys, "run", "r.yaml", "--out", "out")
    assert done.returncode == USER
    assert f"a.parquet: is {which} of train, byte for byte; give other rows, or leave it out" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_fault_names_the_file_and_its_row(capsys: Capture) -> None:
    write(Path("rows"))
    changed = columns_of(5, 7)
    changed["x"][3] = np.inf
    pq.write_table(pa.table(changed), "rows/year=2024/region=us/b.parquet")
    recipe(Path(), "rows")
    text = "data.source: rows/year=2024/region=us/b.parquet:row 3, column 'x': inf is "
    refused(lambda: called(capsys, "run", "r.yaml", "--out", "out"), Path(), [text])


def test_images_lie_beside_the_files(capsys: Capture) -> None:
    Path("rows/img").mkdir(parents=True)
    for i in range(40):
        Image.new("L", (4, 4), 6 * i).save(f"rows/img/{i}.png")
    for part in range(2):
        names = [f"img/{i}.png" for i in range(20 * part, 20 * part + 20)]
        pq.write_table(
            pa.table({"photo": names, "label": [i % 2 for i in range(20)]}), f"rows/{part}.parquet"
        )
    image = {"image": {"column": "photo", "mode": "grey"}}
    source = Table.model_validate({"kind": "table", "path": "rows/*.parquet", "inputs": image}, strict=False)
    assert source.header().input_shape == (1, 4, 4)
    columns = source.read(0, Wanted({"label": "classes"}))
    assert columns.inputs[:, 0, 0, 0].tolist() == [6 * i for i in range(40)]


# --- addresses ---


def leaks(secrets: tuple[str, ...], *texts: str) -> list[str]:
    """The files below the test's folder, and the texts, that hold a secret."""
    found = [text for text in texts if any(secret in text for secret in secrets)]
    for path in Path("..").rglob("*"):
        if path.is_file() and any(secret.encode() in path.read_bytes() for secret in secrets):
            found.append(str(path))
    return found


def test_every_command_takes_an_address_and_tells_nobody_its_credentials(s3: Store, capsys: Capture) -> None:
    """Of a real server that checks the signature of each request."""
    secrets, said = (s3.secret, s3.key), []

    def command(*given: str) -> str:
        done = called(capsys, *given)
        said.append(done.stdout + done.stderr)
        assert done.returncode == OK, done.stderr
        return done.stderr

    address = s3.put("e2e/rows", write(Path("rows")))
    new = s3.put("e2e/new.csv", b"x,region,year\n0.5,eu,2024\n-0.5,us,2024\n")
    command("init", address, "--targets", "label", "-o", "r.yaml")
    assert first_recipe() == ("rows", address)
    recipe(Path(), address)
    command("validate", "r.yaml")
    command("run", "r.yaml", "--out", "out", "--quiet", "--debug")
    for name in ("recipe.yaml", "recipe.resolved.yaml"):
        assert address in Path("out", name).read_text(encoding="utf-8")
    command("predict", "out", "--input", new, "--output", "p.csv", "--debug")
    assert len(Path("p.csv").read_text(encoding="utf-8").splitlines()) == 3
    assert f"{address} is the file that the run was trained on" in command("eval", "out", "--data", address)
    command("report", "out")
    recipe(Path(), "rows")
    assert (
        run(capsys, "here")["results"]
        == json.loads(Path("out/run.json").read_text(encoding="utf-8"))["results"]
    )
    assert leaks(secrets, *said) == []
    Path("proof").write_text(s3.secret, encoding="utf-8")
    assert [Path(found).name for found in leaks(secrets)] == ["proof"]


@pytest.mark.parametrize("fault", ["secret", "key", "bucket", "network", "pattern"])
def test_no_error_tells_credentials(
    fault: str, s3: Store, capsys: Capture, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    address, code = s3.put("faults/t.csv", b"x,label\n1,yes\n"), ENVIRONMENT
    secrets = [s3.secret, s3.key, "WRONGSECRET", "WRONGKEY"]
    match fault:
        case "secret":
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "WRONGSECRET")
        case "key":
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "WRONGKEY")
        case "network":
            monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        case "bucket":
            address, code = "s3://no-such-bucket-of-mtl/t.csv", USER
        case "pattern":
            address, code = f"{address}/*.parquet", USER
    recipe(Path(), address, inputs={"numeric": ["x"]})
    for given in (["validate", "r.yaml"], ["run", "r.yaml", "--out", "out", "--debug"],
                  ["init", address, "--targets", "label", "-o", "new.yaml"]):  # fmt: skip
        done = called(capsys, *given)
        assert done.returncode == code
        last = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(last) == 1
        assert address in last[0]
        assert leaks(tuple(secrets), done.stdout, done.stderr, caplog.text) == []
    assert not Path("out").exists()


@pytest.mark.parametrize("option", ["predict", "eval"])
def test_credentials_in_an_address_of_the_command_line(option: str, capsys: Capture) -> None:
    write(Path("rows"))
    recipe(Path(), "rows")
    run(capsys, "out")
    address = "s3://AKIAKEY:SECRETSECRET@bucket/t.csv"
    given = ["--input", address, "--output", "p.csv"] if option == "predict" else ["--data", address]
    done = called(capsys, option, "out", *given)
    assert (done.returncode, done.stdout) == (USER, "")
    assert done.stderr == (
        "error: the address holds credentials; leave them to the environment, and write the bucket alone\n"
    )


def test_images_of_an_address_are_refused(s3: Store) -> None:
    address = s3.put("images/t.csv", b"photo,label\na.png,1\n")
    image = {"image": {"column": "photo", "mode": "grey"}}
    source = Table.model_validate({"kind": "table", "path": address, "inputs": image}, strict=False)
    with pytest.raises(
        UserError, match="path: images are read from this machine; bring the table and its images"
    ):
        source.header()


def test_arrays_of_an_address(s3: Store) -> None:
    from mtl.sources.npz import Npz

    np.savez("a.npz", inputs=np.ones((3, 2), np.float32), label=[0, 1, 1])
    source = Npz(path=s3.put("arrays/a.npz", Path("a.npz")))
    assert source.header().input_shape == (2,)
    assert source.columns(0).inputs.shape == (3, 2)

"""The headline metric on resampled rows: its spread is that of the binomial law, and its draws are paired."""

import json
from pathlib import Path

import numpy as np
import pytest

import mtl
from mtl.errors import UserError
from mtl.evaluation.bootstrap import REPLICATES, Draws
from mtl.runs.results.bootstrap import BOOTSTRAP, read_bootstrap


def run(out: Path, **overrides: str) -> Path:
    given = [f"{key.replace('__', '.')}={value}" for key, value in overrides.items()]
    mtl.run("synthetic_stitch", ["train.epochs=1", "data.source.test_rows=900", *given], out=out)
    return out


def test_the_spread_is_that_of_a_proportion(tmp_path: Path) -> None:
    found = read_bootstrap(run(tmp_path / "run"))
    results = json.loads((tmp_path / "run/run.json").read_bytes())["results"]
    for task, own in found.tasks.items():
        p = own.value
        assert p is not None
        assert (own.metric, p, own.n_units, own.by_group) == (
            "accuracy",
            results[f"test/{task}/accuracy"],
            900,
            False,
        )
        spread = np.std(np.array(own.replicates, dtype=float))
        assert len(own.replicates) == REPLICATES
        assert spread == pytest.approx(
            (p * (1 - p) / 900) ** 0.5, rel=0.2
        )  # 4 standard errors of 200 replicates
        assert np.mean(np.array(own.replicates, dtype=float)) == pytest.approx(p, abs=0.004)


def test_two_networks_are_measured_on_the_same_resamples(tmp_path: Path) -> None:
    one, same = (read_bootstrap(run(tmp_path / name)) for name in ("one", "same"))
    assert one == same
    other = read_bootstrap(run(tmp_path / "other", optimizer__lr="2e-3"))
    first, second = (np.array(found.tasks["first"].replicates, dtype=float) for found in (one, other))
    assert np.corrcoef(first, second)[0, 1] > 0.3  # the networks agree on many rows


def draws(n: int, groups: np.ndarray | None, n_tasks: int = 1) -> Draws:
    class Data:
        splits = {"test": np.arange(n)}

    Data.groups = groups  # type: ignore[attr-defined]
    return Draws.of(Data, "test", n_tasks)  # type: ignore[arg-type]


def test_whole_groups_are_drawn() -> None:
    groups = np.repeat([7, 3, 9], [4, 1, 2])
    found = draws(7, groups)
    assert (found.n_units, found.by_group, found.thinning) == (3, True, 1)
    for r in range(20):
        counts = found.counts(r)
        assert [len(set(counts[groups == g])) for g in (7, 3, 9)] == [1, 1, 1]
        assert counts[[0, 4, 5]].sum() == 3


def test_many_rows_are_thinned_and_their_spread_is_scaled() -> None:
    found = draws(1_000_000, None, n_tasks=2)
    assert found.thinning == 10
    assert len(found.rows) == found.n_units == 100_000
    scaled = found._resampled("accuracy", [0.5, 0.6, None, 0.4])
    assert scaled.replicates == pytest.approx((0.5 + 0.1 / 10**0.5, None, 0.5 - 0.1 / 10**0.5))
    assert scaled.n_units == 1_000_000


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "cannot be read"),
        (b'{"schema_version": 2, "tasks": {}}', "schema_version is 2, which no run writes"),
        (b'{"schema_version": 1}', "has no 'tasks'"),
    ],
)
def test_a_file_that_no_run_writes(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / BOOTSTRAP).write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_bootstrap(tmp_path)

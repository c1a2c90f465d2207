"""One table with labels of every kind, which numbers and categories tell but for a little noise."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

N = 1200


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    x, city = rng.standard_normal((N, 3)), rng.integers(0, 4, N)
    s = x[:, 0] * np.sign(x[:, 1]) + np.array([0.0, 1.5, -1.0, 0.5])[city] + 0.3 * rng.standard_normal(N)
    cities = np.array(["Bergen", "Cork", "Evora", None], dtype=object)[city]
    some = rng.random(N) < 0.5
    columns = {
        "id": [f"{i}" for i in range(N)],
        "x0": np.where(rng.random(N) < 0.1, np.nan, x[:, 0]),
        "x1": x[:, 1],
        "x2": x[:, 2],
        "city": cities.tolist(),
        "sort": [("low", "medium", "high")[c] for c in np.digitize(s, [-0.8, 1.0])],
        "grade": np.digitize(s, [-1.2, 0.2, 1.5]),
        "yes": (s > 0.6).astype(int),
        "seldom": [str(int(v > 0.6)) if there else None for v, there in zip(s, some, strict=True)],
        "often": (s > -0.5).astype(int),
        "rare": (s > 1.2).astype(int),
        "amount": 1000 + 20 * s,
        "share": 1 + np.arange(N) % 3,
        "vector": [row.tolist() for row in np.round(x, 4)],
    }
    path = tmp_path_factory.mktemp("shop") / "shop.parquet"
    pq.write_table(pa.table(columns), path)
    return path

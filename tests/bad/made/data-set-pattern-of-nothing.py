"""A pattern that no file fits."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

for name, columns in {
    "a.parquet": {"x": [0.5, 1.5], "label": [0, 1]},
}.items():
    path = Path("rows", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)

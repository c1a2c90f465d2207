"""Two folders of a file that name the same column."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

for name, columns in {
    "k=1/k=2/a.parquet": {"x": [0.5, 1.5], "label": [0, 1]},
}.items():
    path = Path("rows", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)

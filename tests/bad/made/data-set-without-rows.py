"""Files of a data set, none of which has a row."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

for name, columns in {
    "a.parquet": {"x": pa.array([], pa.float64()), "label": pa.array([], pa.int64())},
}.items():
    path = Path("rows", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)

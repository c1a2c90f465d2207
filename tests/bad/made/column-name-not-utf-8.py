"""A Parquet file whose column is called by bytes that are no UTF-8 text."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

pq.write_table(
    pa.table({"x": [1.0], "zzzz": [1.0], "c": ["r"], "label": ["a"]}), "train.parquet", store_schema=False
)
data = Path("train.parquet").read_bytes()
Path("train.parquet").write_bytes(data.replace(b"zzzz", b"zz\xffz"))

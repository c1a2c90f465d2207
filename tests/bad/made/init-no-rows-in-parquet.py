"""A Parquet file without rows."""

import pyarrow as pa
import pyarrow.parquet as pq

pq.write_table(pa.table({"x": pa.array([], pa.int64()), "label": pa.array([], pa.string())}), "train.parquet")

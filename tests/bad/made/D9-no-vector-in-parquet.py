"""A column of vectors, and no rows."""

import pyarrow as pa
import pyarrow.parquet as pq

columns = {"v": pa.array([], pa.list_(pa.float32())), "label": pa.array([], pa.string())}
pq.write_table(pa.table(columns), "train.parquet")

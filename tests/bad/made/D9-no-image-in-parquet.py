"""A column of images, and no rows."""

import pyarrow as pa
import pyarrow.parquet as pq

columns = {"photo": pa.array([], pa.string()), "label": pa.array([], pa.string())}
pq.write_table(pa.table(columns), "train.parquet")

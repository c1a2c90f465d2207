"""A column of lists as times."""

import pyarrow as pa
import pyarrow.parquet as pq

columns = {"x": range(8), "z": range(8), "c": list("rbrbrbrb"), "label": list("abababab"), "t": [[1]] * 8}
pq.write_table(pa.table(columns), "train.parquet")

"""Dates as times of training rows, numbers as those of test rows."""

from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq

columns = {"x": range(8), "z": range(8), "c": list("rbrbrbrb"), "label": list("abababab")}
pq.write_table(pa.table(columns | {"t": [date(2024, 3, 1 + i) for i in range(8)]}), "train.parquet")
pq.write_table(pa.table(columns | {"t": range(8)}), "test.parquet")

"""A column of times as a target."""

from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq

pq.write_table(pa.table({"x": range(60), "day": [date(2024, 3, 1)] * 60}), "train.parquet")

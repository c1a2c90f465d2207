"""A label that is an infinite number, in a file whose numbers are no text."""

import pyarrow as pa
import pyarrow.parquet as pq

pq.write_table(pa.table({"x": range(60), "label": [*map(float, range(59)), float("inf")]}), "train.parquet")

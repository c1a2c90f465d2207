"""A column of vectors, and no rows."""

from pathlib import Path

Path("train.csv").write_text("v,label\n")

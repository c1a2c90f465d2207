"""A header only."""

from pathlib import Path

Path("train.csv").write_text("x,label\n")

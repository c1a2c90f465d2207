"""A table in place of a recipe."""

from pathlib import Path

Path("train.csv").write_text("x,label\n" + "1,a\n" * 2000)

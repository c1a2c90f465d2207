"""A file of test rows that has none."""

from pathlib import Path

rows = "".join(f"{i},{i},r,{'ab'[i % 2]}\n" for i in range(8))
Path("train.csv").write_text("x,z,c,label\n" + rows)
Path("test.csv").write_text("x,z,c,label\n")

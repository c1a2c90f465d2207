"""A file of test rows that lacks an input."""

from pathlib import Path

rows = "".join(f"{i},{i},r,{'ab'[i % 2]}\n" for i in range(8))
Path("train.csv").write_text("x,z,c,label\n" + rows)
Path("test.csv").write_text("x,z,label\n1,2,a\n")

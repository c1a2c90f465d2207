"""A different number in each of 100,001 rows."""

from pathlib import Path

rows = "".join(f"1,1,r,{i}\n" for i in range(100_001))
Path("train.csv").write_text("x,z,c,label\n" + rows)

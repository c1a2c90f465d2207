"""A table beside generated vectors."""

from pathlib import Path

rows = [(i, i, "rb"[i % 2], "ab"[i % 2]) for i in range(8)]
one = "x,z,c,label\n" + "".join(f"{x},{z},{c},{label}\n" for x, z, c, label in rows)
two = one

Path("train.csv").write_text(one)
Path("two.csv").write_text(two)

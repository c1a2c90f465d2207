"""A task that learns from a source without its label."""

from pathlib import Path

rows = [(i, i, "rb"[i % 2], "ab"[i % 2]) for i in range(8)]
one = "x,z,c,label\n" + "".join(f"{x},{z},{c},{label}\n" for x, z, c, label in rows)
two = one
two = two.replace("label", "other")
Path("train.csv").write_text(one)
Path("two.csv").write_text(two)

"""A pattern that finds 257 columns."""

from pathlib import Path

names = [f"t{i}" for i in range(257)]
Path("train.csv").write_text(",".join(["x,z,c", *names]) + "\n" + ",".join(["1,1,r"] + ["0"] * 257) + "\n")

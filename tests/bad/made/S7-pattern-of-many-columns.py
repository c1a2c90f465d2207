"""A pattern that finds 1025 columns."""

from pathlib import Path

names = [f"t{i}" for i in range(1025)]
Path("train.csv").write_text(",".join(["x,z,c", *names]) + "\n" + ",".join(["1,1,r"] + ["0"] * 1025) + "\n")

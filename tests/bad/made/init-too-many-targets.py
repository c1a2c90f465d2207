"""A pattern that more columns match than a recipe can have tasks."""

from pathlib import Path

names = [f"y{i}" for i in range(1025)]
rows = [",".join([str(i), *["01"[i % 2]] * 1025]) + "\n" for i in range(20)]
Path("train.csv").write_text(",".join(["x", *names]) + "\n" + "".join(rows))

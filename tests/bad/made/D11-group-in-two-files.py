"""Test rows of which four are of groups of the training rows."""

from pathlib import Path

head = "x,z,c,label,id\n"
rows = [f"{i},{i},{'rb'[i % 2]},{'ab'[i % 2]},i{i}\n" for i in range(12)]
Path("train.csv").write_text(head + "".join(rows[:8]))
Path("test.csv").write_text(head + "".join(rows[4:]))

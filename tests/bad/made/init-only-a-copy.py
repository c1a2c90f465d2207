"""A table whose one input is a copy of the label."""

from pathlib import Path

Path("train.csv").write_text("x,label\n" + "".join(f"{i % 2},{['no', 'yes'][i % 2]}\n" for i in range(60)))

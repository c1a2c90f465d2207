"""A pattern that no column matches."""

from pathlib import Path

Path("train.csv").write_text("x,label\n" + "".join(f"{i},{i % 2}\n" for i in range(60)))

"""A label whose cells hold `x` or nothing."""

from pathlib import Path

rows = [f"{i},{'x' if i % 3 else ''}\n" for i in range(60)]
Path("train.csv").write_text("x,label\n" + "".join(rows))

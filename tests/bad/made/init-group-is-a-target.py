"""A column that is group and target."""

from pathlib import Path

Path("train.csv").write_text("x,label,e,free\n" + "".join(f"{i},{i % 2},,text {i}\n" for i in range(60)))

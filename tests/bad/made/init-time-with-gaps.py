"""A column of times that lacks values."""

from pathlib import Path

Path("train.csv").write_text("x,label,t\n" + "".join(f"{i},{i % 2},{i or ''}\n" for i in range(60)))

"""A list column with more distinct labels than a task may have."""

from pathlib import Path

labels = ["|".join(str(k) for k in range(i, 12_000, 8)) for i in range(8)]
rows = "".join(f"{i},{i},r,{text}\n" for i, text in enumerate(labels))
Path("train.csv").write_text("x,z,c,label\n" + rows)

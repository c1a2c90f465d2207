"""A label of numbers, of which some stand in brackets."""

from pathlib import Path

rows = [f"{i},{f'({i}.5)' if i % 3 == 0 else f'{i}.5'}\n" for i in range(60)]
Path("train.csv").write_text("x,label\n" + "".join(rows))

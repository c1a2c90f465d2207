"""Two links that lead to each other."""

from pathlib import Path

from PIL import Image

Path("img").mkdir()
for i in range(8):
    Image.new("RGB", (8, 8), (30 * i, 0, 0)).save(f"img/{i}.png")
paths = [f"img/{i}.png" for i in range(8)]
Path("img/3.png").unlink()
Path("img/3.png").symlink_to("4.png")
Path("img/4.png").unlink()
Path("img/4.png").symlink_to("3.png")
rows = "".join(f"{path},{'ab'[i % 2]}\n" for i, path in enumerate(paths))
Path("train.csv").write_text("photo,label\n" + rows)

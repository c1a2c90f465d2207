"""A JPEG whose second half is zeros, for which the decoder makes up pixels."""

from pathlib import Path

from PIL import Image

Path("img").mkdir()
for i in range(8):
    Image.new("RGB", (8, 8), (30 * i, 0, 0)).save(f"img/{i}.png")
paths = [f"img/{i}.png" for i in range(8)]
paths[3] = "img/3.jpg"
Image.effect_noise((64, 64), 50).convert("RGB").save("img/3.jpg", quality=95)
whole = Path("img/3.jpg").read_bytes()
Path("img/3.jpg").write_bytes(whole[: len(whole) // 2] + bytes(len(whole) // 2))
rows = "".join(f"{path},{'ab'[i % 2]}\n" for i, path in enumerate(paths))
Path("train.csv").write_text("photo,label\n" + rows)

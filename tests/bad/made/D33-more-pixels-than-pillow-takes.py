"""A PNG whose header says 30,000 x 30,000 pixels."""

import struct
from pathlib import Path

from PIL import Image

from tests.support.bad_files import png_chunk

Path("img").mkdir()
for i in range(8):
    Image.new("RGB", (8, 8), (30 * i, 0, 0)).save(f"img/{i}.png")
paths = [f"img/{i}.png" for i in range(8)]

head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
Path("img/3.png").write_bytes(
    b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head) + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")
)
rows = "".join(f"{path},{'ab'[i % 2]}\n" for i, path in enumerate(paths))
Path("train.csv").write_text("photo,label\n" + rows)

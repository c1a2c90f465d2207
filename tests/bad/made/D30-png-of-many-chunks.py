"""A PNG with a hundred thousand empty chunks, for each of which Pillow would take its time."""

import struct
import zlib
from pathlib import Path

from PIL import Image

Path("img").mkdir()
for i in range(8):
    Image.new("RGB", (8, 8), (30 * i, 0, 0)).save(f"img/{i}.png")
paths = [f"img/{i}.png" for i in range(8)]
whole = Path("img/3.png").read_bytes()
end_of_header = 8 + 12 + 13
empty = struct.pack(">I", 0) + b"teSt" + struct.pack(">I", zlib.crc32(b"teSt"))
Path("img/3.png").write_bytes(whole[:end_of_header] + 100_001 * empty + whole[end_of_header:])
rows = "".join(f"{path},{'ab'[i % 2]}\n" for i, path in enumerate(paths))
Path("train.csv").write_text("photo,label\n" + rows)

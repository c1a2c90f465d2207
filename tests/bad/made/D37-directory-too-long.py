"""A sparse file whose end says that its directory takes 3 GB."""

import os
import struct
from pathlib import Path

size = 3 << 30
with Path("data.npz").open("wb") as file:
    file.write(b"PK\x03\x04")
    file.truncate(size + 4)
    file.seek(0, os.SEEK_END)
    file.write(b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, size, 4, 0))

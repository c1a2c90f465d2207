"""An array that states more bytes than its packed ones can give."""

import struct
from pathlib import Path

import numpy as np

np.savez_compressed("data.npz", inputs=np.zeros((1000, 1000)), label=np.arange(1000) % 2)
data = bytearray(Path("data.npz").read_bytes())
at = data.index(b"PK\x01\x02")
(packed,) = struct.unpack_from("<I", data, at + 20)
struct.pack_into("<I", data, at + 20, packed // 2)
Path("data.npz").write_bytes(data)

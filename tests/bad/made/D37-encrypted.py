"""An archive that says that its members are encrypted."""

from pathlib import Path

import numpy as np

np.savez("data.npz", inputs=np.ones((8, 3)), label=np.arange(8) % 2)
data = bytearray(Path("data.npz").read_bytes())
for start, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
    at = -1
    while (at := data.find(start, at + 1)) >= 0:
        data[at + flags] |= 1
Path("data.npz").write_bytes(data)

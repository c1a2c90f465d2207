"""An empty file."""

import gzip
from pathlib import Path


def idx(*shape: int) -> bytes:
    n = 1
    for size in shape:
        n *= size
    return bytes((0, 0, 8, len(shape))) + b"".join(size.to_bytes(4, "big") for size in shape) + bytes(n)


Path("fashion").mkdir()
good = {
    "train-images-idx3-ubyte": idx(2, 28, 28),
    "train-labels-idx1-ubyte": idx(2),
    "t10k-images-idx3-ubyte": idx(2, 28, 28),
    "t10k-labels-idx1-ubyte": idx(2),
}
for name, data in good.items():
    Path("fashion", f"{name}.gz").write_bytes(gzip.compress(data, mtime=0))
first = Path("fashion/train-images-idx3-ubyte.gz")
first.write_bytes(b"")

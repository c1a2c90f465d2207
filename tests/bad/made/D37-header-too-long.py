"""An array whose header says that it takes a gigabyte; its bytes would pack into a thousandth."""

import struct
import zipfile

import numpy as np

from tests.support.bad_files import npy

with zipfile.ZipFile("data.npz", "w") as archive:
    archive.writestr("inputs.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 30) + b" " * 1000)
    archive.writestr("label.npy", npy(np.arange(8) % 2))

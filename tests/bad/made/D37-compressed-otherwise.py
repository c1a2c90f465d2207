"""An array packed by bzip2."""

import io
import zipfile

import numpy as np


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


inputs, label = npy(np.ones((8, 3))), npy(np.arange(8) % 2)
with zipfile.ZipFile("data.npz", "w") as archive:
    archive.writestr("inputs.npy", inputs)
    archive.writestr("label.npy", label, zipfile.ZIP_BZIP2)

"""One array twice in the archive."""

import io
import warnings
import zipfile

import numpy as np

buffer = io.BytesIO()
np.save(buffer, np.ones((8, 3)))
with zipfile.ZipFile("data.npz", "w") as archive, warnings.catch_warnings(action="ignore"):
    archive.writestr("inputs.npy", buffer.getvalue())
    archive.writestr("inputs.npy", buffer.getvalue())

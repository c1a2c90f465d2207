"""An array packed by bzip2."""

import zipfile

import numpy as np

from tests.support.bad_files import npy

inputs, label = npy(np.ones((8, 3))), npy(np.arange(8) % 2)
with zipfile.ZipFile("data.npz", "w") as archive:
    archive.writestr("inputs.npy", inputs)
    archive.writestr("label.npy", label, zipfile.ZIP_BZIP2)

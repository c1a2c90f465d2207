"""A pickle that would leave a marker, by the name of an .npz file."""

import pickle
from pathlib import Path


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("marker"),)


Path("data.npz").write_bytes(pickle.dumps(Evil()))

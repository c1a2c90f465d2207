"""A spelling of gender that is not known."""

import numpy as np

faces = {
    "embedding": np.eye(8, 128, dtype=np.float32),
    "gender": np.array(list("fmfmfmfm")),
    "young": np.array(["yes", "no"] * 4),
}
faces["gender"] = np.array(["f", "m", "w", "m"] * 2)
np.savez("faces.npz", **faces)

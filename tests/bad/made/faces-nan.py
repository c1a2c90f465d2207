"""An embedding that is not finite."""

import numpy as np

faces = {
    "embedding": np.eye(8, 128, dtype=np.float32),
    "gender": np.array(list("fmfmfmfm")),
    "young": np.array(["yes", "no"] * 4),
}
faces["embedding"][3, 5] = np.nan
np.savez("faces.npz", **faces)

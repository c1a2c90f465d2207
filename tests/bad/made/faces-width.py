"""Embeddings of another width."""

import numpy as np

faces = {
    "embedding": np.eye(8, 128, dtype=np.float32),
    "gender": np.array(list("fmfmfmfm")),
    "young": np.array(["yes", "no"] * 4),
}
faces["embedding"] = np.eye(8, 512)
np.savez("faces.npz", **faces)

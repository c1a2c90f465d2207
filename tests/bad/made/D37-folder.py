"""A folder."""

from pathlib import Path

Path("data.npz").mkdir()

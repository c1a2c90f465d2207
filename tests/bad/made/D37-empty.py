"""An empty file."""

from pathlib import Path

Path("data.npz").touch()

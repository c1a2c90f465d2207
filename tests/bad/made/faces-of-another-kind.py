"""A file of another kind."""

from pathlib import Path

Path("faces.npz").touch()
Path("faces.npz").rename("faces.pkl")
Path("faces.npz").touch()

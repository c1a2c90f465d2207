"""A CSV by the name of an .npz file."""

from pathlib import Path

Path("data.npz").write_text("x,label\n1,a\n")

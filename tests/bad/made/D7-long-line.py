"""A line of 18 MB, of short fields."""

from pathlib import Path

Path("train.csv").write_bytes(b"x,z,c,label\n" + b"1," * 9_000_000)

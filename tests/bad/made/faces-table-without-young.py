"""A CSV of embeddings that lacks a label."""

from pathlib import Path

Path("train.csv").write_text("embedding,gender\n[1],f\n")

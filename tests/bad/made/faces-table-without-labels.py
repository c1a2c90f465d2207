"""A CSV of embeddings that lacks both labels."""

from pathlib import Path

Path("train.csv").write_text("embedding,sex\n[1],f\n")

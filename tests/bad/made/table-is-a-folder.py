"""A folder in place of a table."""

from pathlib import Path

Path("folder").mkdir()

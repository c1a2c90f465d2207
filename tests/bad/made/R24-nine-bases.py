"""Nine recipes on top of each other."""

from pathlib import Path

for i in range(10):
    Path(f"b{i}.yaml").write_text(f"schema_version: 1\nname: b\nbase: b{i + 1}.yaml\n")
Path("b10.yaml").write_text("schema_version: 1\nname: b\n")

"""Two recipes on top of each other, of 10,500 values each, and a third."""

from pathlib import Path

values = "1, " * 10_500
for name, base in (("r", "base: b.yaml\n"), ("b", "base: c.yaml\n"), ("c", "")):
    text = f"schema_version: 1\nname: bad\n{base}task_defaults: {{metrics: [{values}]}}\n"
    Path(f"{name}.yaml").write_text(text)

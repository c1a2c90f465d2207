"""Defaults of a thousand values for each of 256 tasks."""

from pathlib import Path

groups = ", ".join(f"g{i}: [{i}]" for i in range(400))
tasks = "".join(f"  t{i}: {{target: label}}\n" for i in range(256))
Path("r.yaml").write_text(
    "schema_version: 1\nname: bad\ndata: {source: {kind: synthetic}}\n"
    f"task_defaults: {{kind: multiclass, groups: {{{groups}}}}}\ntasks:\n{tasks}"
)

"""The command: which sections are measured, and where their results go."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

from bench.speed.cases import CASES
from bench.speed.measure import ROOT, machine, name_of
from bench.speed.render import SECTIONS, render, section_of

DEFAULT = tuple(name for name in SECTIONS if name != "accuracy")  # which takes minutes
RESULTS = ROOT / "bench" / "results"


def main() -> None:
    """Measure the sections that were asked for, or show results."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.speed", description="How fast mtl is, section by section."
    )
    parser.add_argument("--sections", default=",".join(DEFAULT), help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--rounds", type=int, help="of each section; by default its own number")
    parser.add_argument("--cases", default=",".join(CASES), help="of the section steps")
    parser.add_argument("--json", type=Path, help="default: bench/results/ and the name of this machine")
    parser.add_argument("--render", type=Path, metavar="FILE", help="write its tables into bench/README.md")
    parser.add_argument("--profile", metavar="CASE", help="print where the time of its steps goes")
    given = parser.parse_args()
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)
    )  # busy processes end with this one
    if given.render:
        print(render(given.render), end="")
    elif given.profile:
        steps = section_of("steps")
        print(steps.profile(given.profile, given.rounds or steps.ROUNDS))
    else:
        path = given.json or RESULTS / f"{name_of(machine())}.json"
        names = given.sections.split(",")
        modules = {name: section_of(name) for name in names}
        for name, module in modules.items():
            began = perf_counter()
            options = {"cases": given.cases.split(",")} if name == "steps" else {}
            found = module.section(given.rounds or module.ROUNDS, **options)
            print(f"## {module.TITLE}\n\n{module.table(found)}", flush=True)
            print(f"{perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
            write(path, name, found)


def write(path: Path, name: str, found: dict[str, Any]) -> None:
    """Put the results of a section beside those that the file has of this machine."""
    own = machine()
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    results = known if known.get("machine") == own else {}
    if name == "steps":  # some of the cases may have been left out
        found = {**results.get(name, {}), **found}
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**results, "machine": own, name: found}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")

"""Every place where mtl refuses an input, and whether a test reaches it: `python -m tests.support.raise_sites`.

A site is a statement that raises a new exception (of whatever class: what a layer below raises becomes the user's
line above), or an expression that makes a refusal which is collected or returned: a `UserError` or one of its
subclasses, a finding of the recipe's schema, `(path, what)` in a generator or list of such findings.

The coverage data of a whole run of the tests say which lines ran, and which of them for an input of tests/bad: the
tests of these run in a context of their own (`in_context`, called by tests/conftest.py). Exit code 1, with a line for
each site of the layers that take input which no test reaches, or no input of tests/bad.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from coverage import Coverage, CoverageData

ROOT = Path(__file__).parents[2]
SOURCES = ("mtl", "tasks")
INPUT_LAYERS = ("mtl/recipe/", "mtl/data/", "mtl/sources/", "tasks/")
"""Where nearly every site can be reached by a file that a user writes."""
ENFORCED = (
    *INPUT_LAYERS,
    *("mtl/backbones/", "mtl/sharing/", "mtl/weightings/", "mtl/commands/"),
    *("mtl/build.py", "mtl/cli.py", "mtl/registry.py", "mtl/contracts.py"),
)
"""Where a site that no test reaches is an error; elsewhere it is only named."""
BAD = ("tests/test_bad", "tests/recipe/text/test_yaml.py::")
"""The tests whose inputs are the files of tests/bad/, or such as cannot be kept as a file."""
CONTEXT = "a bad input"

MAKERS = {"recipe_errors", "fault", "PydanticCustomError"}
"""What makes a finding of the recipe's schema."""
NOT_REFUSALS = {"NotImplementedError", "AssertionError"}
"""Members that a subclass must give, and what only our own code can break."""


@dataclass(frozen=True)
class Site:
    """One refusal: the file, its first and last line, and its text in one line."""

    file: str
    first: int
    last: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.first}: {self.text[:100]}"

    def reached(self, lines: Iterable[int]) -> bool:
        return any(self.first <= line <= self.last for line in lines)


UNREACHABLE: dict[tuple[str, str], str] = {
    (
        "mtl/data/files/npz_stream.py",
        "ends at row",
    ): "the size of each array was compared with its header before",
    (
        "mtl/backbones/timm/network.py",
        "lists no features",
    ): "each chain of timm 1.0 has features; another release may have one without",
    (
        "tasks/__init__.py",
        "ImportError",
    ): "reached in a process whose folder is no checkout, which is not measured",
}
"""(file, a part of the site's text) -> why no test can reach it."""

NOT_BY_AN_INPUT: dict[tuple[str, str], str] = {
    ("mtl/data/columns/arrays.py", "no rows"): "the header of an array without rows is refused before",
    ("mtl/data/rows/order.py", "there are no rows"): "an empty train split is refused before",
    ("mtl/data/files/download.py", "raise"): "the network or the disk, not an input",
    ("mtl/data/files/images.py", "UserError('', 'no rows')"): "a table without rows is refused before",
    ("mtl/data/files/images.py", "permission denied"): "rights are the machine's, and root has all",
    (
        "mtl/dataset/join.py",
        "{quoted(column)}{where}",
    ): "a label that is in no source is named before rows are read",
    (
        "mtl/dataset/join.py",
        "raise UserError('', what, path=('target',))",
    ): "sources of one form agree in this",
    (
        "mtl/dataset/join.py",
        "in the data",
    ): "a further column that is in no source is named before rows are read",
    ("mtl/data/memory.py", "raise"): "the memory of the machine, not an input",
    ("mtl/data/room.py", "raise"): "the disk of the machine, not an input",
    ("mtl/data/files/formats/parquet.py", "EnvironmentFault"): "likewise",
    ("mtl/data/files/remote/listing.py", "raise"): "the network, the store or the machine, not an input",
    ("mtl/data/files/remote/fetch.py", "raise"): "likewise",
    ("mtl/data/files/parts.py", "on_one_line(str(self.folder))"): "a million files",
    (
        "mtl/data/files/table.py",
        "raise UserError(self.where(name, first + k), what)",
    ): "texts that would take a gigabyte when they are copied to their rows",
    (
        "mtl/data/rows/sampling.py",
        "no row of train has a label",
    ): "a task without labels in train is refused before",
    (
        "mtl/data/rows/split_rules.py",
        "raise UserError('', what, path=('group',))",
    ): "no source of ours splits a unit",
    ("mtl/data/rows/splits.py", "the data have no rows"): "a source without rows is refused before",
    ("mtl/data/rows/splits.py", "names a row outside"): "a plug-in that does so is refused before",
    (
        "mtl/dataset/standardize.py",
        "hold values too large",
    ): "inputs in float32 have a mean and deviation in float32",
    ("mtl/dataset/standardize.py", "no training rows"): "an empty train split is refused before",
    ("mtl/data/files/opening.py", "was changed while it was read"): "the file has to change while it is read",
    ("mtl/data/files/table.py", "when it was checked"): "likewise",
    ("mtl/data/files/formats/csv.py", "cannot be read as CSV"): "the check of a CSV finds such faults before",
    (
        "mtl/recipe/keys/checks.py",
        "at most {MAX_TASKS} tasks",
    ): "the count is refused before; here for Recipe in Python",
    (
        "mtl/recipe/task_spec.py",
        "cannot be weighted",
    ): "every metric of a kind of ours can; a plug-in's kind in a test",
    (
        "mtl/recipe/keys/checks.py",
        "start from the same weights",
    ): "towers of timm, which not every machine has; tests/backbones has them",
    ("mtl/recipe/load.py", "a key is text"): "for a recipe given as a mapping in Python",
    (
        "mtl/data/columns/labels.py",
        "is not a whole number",
    ): "sources of ours give fractions as text; a plug-in's source in a test",
    (
        "tasks/regression.py",
        "holds text",
    ): "sources of ours read a target of numbers as numbers; a plug-in's source in a test",
    ("mtl/sources/fashion_mnist.py", "right after its download"): "the disk, not an input",
}
"""(file, a part of the site's text) -> why no file that a user writes reaches it. Other tests do."""


def classes(trees: Iterable[ast.Module]) -> set[str]:
    """UserError and every class below it."""
    found, bases = {"UserError"}, {}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = {base.id for base in node.bases if isinstance(base, ast.Name)}
    while more := {name for name, above in bases.items() if above & found} - found:
        found |= more
    return found


def sites_in(tree: ast.Module, file: str, makers: set[str]) -> Iterator[Site]:
    """The sites of one file, in the order of its lines; an expression within a site is no second one."""
    pending: list[tuple[ast.AST, bool]] = [(tree, False)]
    found = []
    while pending:
        node, findings = pending.pop()
        if isinstance(node, ast.FunctionDef):
            findings = _gives_findings(node)
        if _is_site(node, findings, makers):
            assert isinstance(node, ast.expr | ast.stmt)
            text = " ".join(ast.unparse(node).split())
            found.append(Site(file, node.lineno, node.end_lineno or node.lineno, text))
        else:
            pending += [(child, findings) for child in ast.iter_child_nodes(node)]
    yield from sorted(found, key=lambda site: site.first)


def _is_site(node: ast.AST, findings: bool, makers: set[str]) -> bool:
    if isinstance(node, ast.Raise):
        made = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        if isinstance(made, ast.Name):  # `raise error` hands on what was made elsewhere
            return made.id[0].isupper() * (made.id not in NOT_REFUSALS) or made.id in makers
        return made is not None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in makers
    return findings and isinstance(node, ast.Tuple) and len(node.elts) == 2 and _is_path(node.elts[0])


def _gives_findings(function: ast.FunctionDef) -> bool:
    """Whether it yields, returns or collects (path, what)."""
    makes = {
        n.func.id for n in ast.walk(function) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    }
    returns = ast.unparse(function.returns) if function.returns else ""
    return "recipe_errors" in makes or "Problem" in returns or "], str]]" in returns


def _is_path(node: ast.expr) -> bool:
    return isinstance(node, ast.Tuple) or (isinstance(node, ast.Name) and node.id == "path")


@cache
def all_sites(root: Path = ROOT, sources: tuple[str, ...] = SOURCES) -> tuple[Site, ...]:
    """The sites of every file below the folders, which are not links."""
    files = [path for source in sources for path in sorted((root / source).rglob("*.py"))]
    files = [path for path in files if path.resolve() == root.resolve() / path.relative_to(root)]
    trees = {str(path.relative_to(root)): ast.parse(path.read_bytes()) for path in files}
    makers = MAKERS | classes(trees.values())
    return tuple(site for file, tree in trees.items() for site in sites_in(tree, file, makers))


@contextmanager
def in_context(test: str) -> Iterator[None]:
    """Let the lines of a test be told apart if its inputs are bad ones; a context for each test takes 10% more time."""
    measured = Coverage.current() if test.startswith(BAD) else None
    if measured is None:
        yield
        return
    measured.switch_context(CONTEXT)
    try:
        yield
    finally:
        measured.switch_context("")


@dataclass
class Ran:
    """The lines that ran, by file; and those that ran for an input of tests/bad, if that is known."""

    lines: dict[str, set[int]]
    bad: dict[str, set[int]] | None

    @classmethod
    def read(cls, path: Path, root: Path = ROOT) -> Ran:
        data = CoverageData(str(path))
        data.read()
        lines, bad = {}, {}
        for measured in data.measured_files():
            file = Path(measured).resolve()
            if file.is_relative_to(root.resolve()):
                name = str(file.relative_to(root.resolve()))
                lines[name] = set(data.lines(measured) or ())
                contexts = data.contexts_by_lineno(measured)
                bad[name] = {line for line, names in contexts.items() if CONTEXT in names}
        return cls(lines, bad if CONTEXT in data.measured_contexts() else None)


def report(sites: Iterable[Site], ran: Ran) -> tuple[list[str], list[Site], list[Site]]:
    """Lines of a table (file, sites, those reached, those by an input of tests/bad), the sites that no test
    reached, and those of the input layers that no input of tests/bad reached."""
    by_file: dict[str, list[Site]] = {}
    for site in sites:
        by_file.setdefault(site.file, []).append(site)
    table, unreached, not_bad = [], [], []
    for file, here in by_file.items():
        missed = [site for site in here if not site.reached(ran.lines.get(file, ()))]
        unreached += missed
        line = f"{file:34} {len(here):4} {len(here) - len(missed):4}"
        if ran.bad is not None:
            others = [site for site in here if not site.reached(ran.bad.get(file, ()))]
            not_bad += [site for site in others if file.startswith(INPUT_LAYERS)]
            line += f" {len(here) - len(others):4}"
        table.append(line)
    return table, unreached, not_bad


def excepted(site: Site, exceptions: dict[tuple[str, str], str]) -> bool:
    return any(site.file == file and part in site.text for file, part in exceptions)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.support.raise_sites", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--data", type=Path, default=ROOT / ".coverage", help="coverage data of all tests")
    parser.add_argument(
        "--table", action="store_true", help="print the sites of each file, and those reached"
    )
    options = parser.parse_args(arguments)
    if not options.data.is_file():
        print(f"error: {options.data}: no coverage data; run `make test COVERAGE=1`", file=sys.stderr)
        return 1
    sites = all_sites()
    ran = Ran.read(options.data)
    table, unreached, not_bad = report(sites, ran)
    if options.table:
        print("\n".join(table))
    missed = [site for site in unreached if not excepted(site, UNREACHABLE)]
    faults = [f"{site} is reached by no test" for site in missed if site.file.startswith(ENFORCED)]
    known = {**UNREACHABLE, **NOT_BY_AN_INPUT}
    faults += [
        f"{site} is reached by no input of tests/bad"
        for site in not_bad
        if site not in unreached and not excepted(site, known)
    ]
    if ran.bad is None:
        faults.append(f"{options.data}: no test of tests/bad was measured")
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    for site in missed:
        if not site.file.startswith(ENFORCED):
            print(f"{site} is reached by no test")
    print(f"{len(sites) - len(unreached)} of {len(sites)} refusals are reached by a test")
    if ran.bad is not None:
        n_input = sum(site.file.startswith(INPUT_LAYERS) for site in sites)
        print(f"{n_input - len(not_bad)} of {n_input} in the input layers by an input of tests/bad")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

"""The house rules that syntax trees can hold: who imports whom, what is loaded when, what is never called."""

import ast
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FAMILIES = ("sources", "backbones", "sharing", "weightings", "optimizers", "schedules", "tasks", "trackers")
ORDER = (
    ("errors",),
    ("registry", "console", "signals", "stages"),
    ("model", "data"),
    ("recipe",),
    FAMILIES,
    ("contracts",),
    ("task_groups",),
    ("build",),
    ("dataset",),
    ("distributed",),
    ("evaluation",),
    ("training",),
    ("runs",),
    ("inference", "report", "starter", "tracking"),
    ("experiment", "export"),
    ("phases", "comparison"),
    ("tuning",),
    ("commands",),
    ("cli",),
    ("", "__main__"),  # mtl/__init__.py: the public names, imported when asked for
)
"""From below to above; a module may import from its own package and from lower rows."""
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
READER = "mtl.recipe.text.yaml"
HEAVY = ("torch", "torchmetrics", "matplotlib", "pyarrow", "scipy")


@dataclass
class Module:
    """One file: its dotted name, its tree, and what it imports as (line, dotted name) pairs."""

    name: str
    tree: ast.Module
    is_package: bool = False
    imports: list[tuple[int, str]] = field(default_factory=list)
    typing_imports: list[tuple[int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for_types = {
            id(inner)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
            for statement in node.body
            for inner in ast.walk(statement)
        }
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                kept = self.typing_imports if id(node) in for_types else self.imports
                kept.extend((node.lineno, name) for name in self._targets(node))

    def _targets(self, node: ast.Import | ast.ImportFrom) -> list[str]:
        if isinstance(node, ast.Import):
            return [alias.name for alias in node.names]
        base = node.module or ""
        if node.level:
            above = self.name.split(".")[: None if self.is_package and node.level == 1 else -node.level]
            if self.is_package and node.level > 1:
                above = self.name.split(".")[: 1 - node.level]
            base = ".".join([*above, *filter(None, [node.module])])
        return [f"{base}.{alias.name}" for alias in node.names]


def module(name: str, text: str) -> Module:
    return Module(name, ast.parse(text))


def all_modules() -> dict[str, Module]:
    """Every file of the package, those behind the links too."""
    found = {}
    for folder, _, names in os.walk(ROOT / "mtl", followlinks=True):
        for path in (Path(folder) / name for name in sorted(names) if name.endswith(".py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            found[name] = Module(name, ast.parse(path.read_text(encoding="utf-8")), is_package)
    return found


MODULES = all_modules()


def under_a_link(path: Path) -> bool:
    """Whether a file is seen a second time, through mtl/tasks or mtl/recipes."""
    return any(parent.is_symlink() for parent in path.parents)


def test_the_walk_finds_the_whole_package() -> None:
    real = [p for folder in ("mtl", "tasks") for p in (ROOT / folder).rglob("*.py") if not under_a_link(p)]
    assert len(MODULES) == len(real) >= 100
    assert {"mtl", "mtl.registry", "mtl.recipe.specs", "mtl.tasks", "mtl.tasks.multiclass"} <= set(MODULES)
    assert len(list((ROOT / "tasks").glob("*.py"))) == sum(name.startswith("mtl.tasks") for name in MODULES)


def part(dotted: str) -> str:
    """`mtl.model.stitch` is of the part `model`; mtl itself and its names are of the part ``."""
    first = [*dotted.split("."), ""][1]
    return first if first in RANK or f"mtl.{first}" in MODULES else ""


def is_ours(dotted: str) -> bool:
    return dotted.split(".")[0] == "mtl" and dotted != "mtl.__version__"


def against_the_order(importer: Module) -> Iterator[str]:
    own = part(importer.name)
    for line, target in importer.imports + importer.typing_imports:
        if not is_ours(target):
            continue
        other = part(target)
        if other not in RANK or own not in RANK:
            missing = other if own in RANK else own
            yield f"{importer.name}:{line}: mtl.{missing} has no row in ORDER"
        elif other != own and RANK[other] >= RANK[own]:
            yield f"{importer.name}:{line}: {target} is not below mtl.{own}"


def beyond_torch(importer: Module) -> Iterator[str]:
    """What a file of model/ imports of mtl besides model/ and errors."""
    if part(importer.name) == "model":
        for line, target in importer.imports + importer.typing_imports:
            if is_ours(target) and part(target) not in ("model", "errors"):
                yield f"{importer.name}:{line}: {target} in model/"


def members_by_name(importer: Module) -> Iterator[str]:
    """What a file imports out of the folder of a family other than its own."""
    for line, target in importer.imports + importer.typing_imports:
        pieces = target.split(".")
        if (
            pieces[0] == "mtl"
            and len(pieces) > 2
            and pieces[1] in FAMILIES
            and pieces[1] != part(importer.name)
        ):
            yield f"{importer.name}:{line}: {target}; look it up in its registry"


@pytest.mark.parametrize("rule", [against_the_order, beyond_torch, members_by_name])
def test_imports_go_one_way(rule: Callable[[Module], Iterator[str]]) -> None:
    assert [fault for importer in MODULES.values() for fault in rule(importer)] == []


@pytest.mark.parametrize("name", [name for name in MODULES if name.count(".") == 1])
def test_every_part_has_its_row(name: str) -> None:
    assert part(name) in RANK, f"put {name} into ORDER"


@pytest.mark.parametrize(
    ("rule", "importer", "text"),
    [
        (against_the_order, "mtl.errors", "import mtl.registry"),
        (against_the_order, "mtl.recipe.load", "def f():\n    from mtl.build import build"),
        (against_the_order, "mtl.data.rows.splits", "from mtl.model import layers"),
        (against_the_order, "mtl.data.rows.splits", "from mtl import run"),
        (against_the_order, "mtl.data.rows.splits", "from ...cli import main"),
        (against_the_order, "mtl.sharing.none", "from mtl.weightings.sum import Sum"),
        (against_the_order, "mtl.report.page", "from mtl.cli import main"),
        (beyond_torch, "mtl.model.stitch", "from mtl.recipe.specs import Shape"),
        (beyond_torch, "mtl.model.stitch", "if TYPE_CHECKING:\n    from mtl.recipe.specs import Shape"),
        (members_by_name, "mtl.build", "from mtl.tasks import Multiclass"),
        (members_by_name, "mtl.cli", "def f():\n    from mtl.sources.table import Table"),
    ],
)
def test_an_import_against_the_rules_is_found(
    rule: Callable[[Module], Iterator[str]], importer: str, text: str
) -> None:
    assert list(rule(module(importer, text)))


@pytest.mark.parametrize(
    ("importer", "text"),
    [
        ("mtl.build", "from mtl.model.tasks.heads import Heads"),
        ("mtl.training.loop", "from mtl.evaluation.evaluate import evaluate"),
        ("mtl.tasks.fashion", "from mtl.tasks.multiclass import Multiclass"),
        ("mtl.recipe.specs", "if TYPE_CHECKING:\n    from mtl.data.types import Columns"),
        ("mtl.recipe.load", "from mtl import __version__"),
        ("mtl", "def f():\n    import mtl.tasks"),
    ],
)
def test_an_import_within_the_rules_passes(importer: str, text: str) -> None:
    own = module(importer, text)
    assert [*against_the_order(own), *beyond_torch(own), *members_by_name(own)] == []


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """One cycle of the graph, or an empty list: leaves are cut off until none is left."""
    left = dict(graph)
    while leaves := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in leaves:
            del left[name]
    walk: list[str] = []
    while left and (not walk or walk[-1] not in walk[:-1]):
        walk.append(min(left[walk[-1]] & left.keys()) if walk else min(left))
    return walk[walk.index(walk[-1]) :] if walk else []


def test_no_import_cycle() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert cycle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    graph: dict[str, set[str]] = {}
    for name, importer in MODULES.items():
        targets = {
            target if target in MODULES else target.rpartition(".")[0]
            for _, target in importer.imports + importer.typing_imports
        }
        graph[name] = {target for target in targets if target in MODULES and target not in ("mtl", name)}
    assert sum(map(len, graph.values())) >= 60
    assert cycle(graph) == []


def test_texts_and_specs_come_without_the_heavy_packages() -> None:
    light = ["mtl", "mtl.errors", "mtl.registry", "mtl.recipe.keys.recipe", "mtl.recipe.load", "mtl.cli"]
    # a member with a network or a weighting of its own keeps it apart from its settings
    light += [
        name
        for name in MODULES
        if part(name) in FAMILIES and not name.endswith((".network", ".module", ".grouping", ".weights"))
    ]
    names = [name for name in light if name in MODULES]
    assert len(names) >= 12
    look = (
        "import importlib, sys\n"
        "for name in sys.argv[2:]:\n"
        "    importlib.import_module(name)\n"
        "    heavy = [h for h in sys.argv[1].split(',') if h in sys.modules]\n"
        "    if heavy: sys.exit(f'import {name} loads {heavy}')\n"
        "print('looked at', len(sys.argv) - 2)"
    )
    done = subprocess.run(
        [sys.executable, "-c", look, ",".join(HEAVY), *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stderr, done.stdout) == ("", f"looked at {len(names)}\n")


# --- what is never called; SECURITY.md says why ---

FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN_NAMES = {
    "torch.load",
    "torch.save",
    "torch.hub",
    "torch.jit.load",
    "torch.serialization.load",
    "os.system",
    "os.popen",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "shutil.unpack_archive",
    "yaml.Loader",
    "yaml.UnsafeLoader",
    "yaml.FullLoader",
    "importlib.__import__",
}
FORBIDDEN_BUILTINS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_ATTRIBUTES = {
    "extractall",
    "read_pickle",
    "broadcast_object_list",
    "all_gather_object",
    "gather_object",
    "scatter_object_list",
}
YAML_LOADERS = {
    f"yaml.{kind}load{all_}" for kind in ("", "unsafe_", "full_", "safe_") for all_ in ("", "_all")
}


def aliases(own: Module) -> dict[str, str]:
    """Local name -> what it stands for, by all the imports of a file."""
    names = {}
    for node in ast.walk(own.tree):
        if isinstance(node, ast.Import):
            names.update({a.asname or a.name.split(".")[0]: a.asname and a.name for a in node.names})
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.update({a.asname or a.name: f"{node.module}.{a.name}" for a in node.names})
    return {local: full or local for local, full in names.items()}


def dotted(node: ast.AST, names: dict[str, str]) -> str:
    """`np.load` as `numpy.load`; an empty text for anything but names and attributes of names."""
    if isinstance(node, ast.Name):
        return names.get(node.id, f"builtins.{node.id}")
    if isinstance(node, ast.Attribute) and (owner := dotted(node.value, names)):
        return f"{owner}.{node.attr}"
    return ""


def is_false(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def swallows(handler: ast.ExceptHandler) -> bool:
    """`except Exception: pass`, also in a tuple, also with `...`."""
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    names = {name.id for name in caught if isinstance(name, ast.Name)}
    empty = all(
        isinstance(step, ast.Pass) or (isinstance(step, ast.Expr) and isinstance(step.value, ast.Constant))
        for step in handler.body
    )
    return empty and bool(names & {"Exception", "BaseException"})


def forbidden(own: Module) -> Iterator[str]:
    names = aliases(own)
    good_loads = {
        id(node.func)
        for node in ast.walk(own.tree)
        if isinstance(node, ast.Call)
        and any(key.arg == "allow_pickle" and is_false(key.value) for key in node.keywords)
    }
    for line, target in own.imports + own.typing_imports:
        if target.split(".")[0] in FORBIDDEN_MODULES:
            yield f"{own.name}:{line}: {target}"
        if (
            target in FORBIDDEN_NAMES
            or target.split(".")[-1] in FORBIDDEN_MODULES
            or target.startswith("torch.hub.")
        ):
            yield f"{own.name}:{line}: {target}"
    for node in ast.walk(own.tree):
        for what in _forbidden_here(node, own.name, names, good_loads):
            yield f"{own.name}:{getattr(node, 'lineno', 0)}: {what}"


def _by_text(node: ast.Call, names: dict[str, str]) -> str:
    """`torch.load` for `getattr(torch, "load")`."""
    if dotted(node.func, names) == "builtins.getattr" and len(node.args) > 1:
        owner, name = node.args[:2]
        if isinstance(name, ast.Constant):
            return f"{dotted(owner, names)}.{name.value}"
    return ""


def _forbidden_here(node: ast.AST, where: str, names: dict[str, str], good_loads: set[int]) -> Iterator[str]:
    if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
        name = dotted(node, names)
        if name in FORBIDDEN_NAMES or name.removeprefix("builtins.") in FORBIDDEN_BUILTINS:
            yield name
        if name in YAML_LOADERS and where != READER:
            yield f"{name} outside {READER}"
        if name == "importlib.import_module" and where != "mtl.registry":
            yield f"{name} outside mtl.registry"
        if name == "numpy.load" and id(node) not in good_loads:
            yield "numpy.load without allow_pickle=False"
        if (node.attr if isinstance(node, ast.Attribute) else name.split(".")[-1]) in FORBIDDEN_ATTRIBUTES:
            yield ast.unparse(node)
    elif isinstance(node, ast.Call) and (found := _by_text(node, names)) in FORBIDDEN_NAMES:
        yield f"{found} by getattr"
    elif isinstance(node, ast.keyword) and node.arg == "shell" and not is_false(node.value):
        yield "shell=True"
    elif isinstance(node, ast.ExceptHandler):
        if node.type is None:
            yield "bare except"
        elif swallows(node):
            yield "except Exception: pass"
    elif isinstance(node, ast.Call) and dotted(node.func, names) == "contextlib.suppress":
        if {dotted(kind, names) for kind in node.args} & {"builtins.Exception", "builtins.BaseException"}:
            yield "suppress(Exception)"
    elif isinstance(node, ast.Assert) and node.msg is not None:
        yield "assert with a message: raise an error, which -O keeps, if a user can cause it"


def test_nothing_forbidden() -> None:
    assert [fault for own in MODULES.values() for fault in forbidden(own)] == []


@pytest.mark.parametrize(
    "text",
    [
        "import torch\ntorch.load(p)",
        "import torch as t\nf = t.load",
        "from torch import load",
        "import torch\ntorch.save(x, p)",
        "import torch\ntorch.hub.load('a', 'b')",
        "from torch.hub import load",
        "import torch.hub",
        "import pickle",
        "import cPickle",
        "from dill import loads",
        "def f():\n    import joblib",
        "import shelve",
        "import marshal as m",
        "import yaml\nyaml.load(t)",
        "import yaml\nyaml.unsafe_load(t)",
        "from yaml import full_load as read\nread(t)",
        "import yaml\nyaml.safe_load(t)",
        "import yaml\nyaml.safe_load_all(t)",
        "eval(t)",
        "exec(t)",
        "compile(t, '', 'eval')",
        "import builtins\nbuiltins.eval(t)",
        "__import__('os')",
        "import importlib\nimportlib.import_module(n)",
        "from importlib import import_module\nimport_module(n)",
        "import tarfile\ntarfile.open(p).extractall()",
        "import subprocess\nsubprocess.run(c, shell=True)",
        "import os\nos.system(c)",
        "import torch\ntorch.jit.load(p)",
        "from torch.serialization import load",
        "import os\nos.popen(c)",
        "import subprocess\nsubprocess.getoutput(c)",
        "from subprocess import getstatusoutput",
        "import shutil\nshutil.unpack_archive(p)",
        "import yaml\nyaml.Loader(t)",
        "import yaml\nyaml.compose(t, Loader=yaml.UnsafeLoader)",
        "from yaml import FullLoader",
        "import importlib\nimportlib.__import__(n)",
        "import torch\ngetattr(torch, 'load')(p)",
        "from mtl.runs.checkpoint import pickle",
        "import pandas as pd\npd.read_pickle(p)",
        "from os import system\nsystem(c)",
        "import numpy as np\nnp.load(p)",
        "import numpy as np\nnp.load(p, allow_pickle=True)",
        "import numpy as np\nnp.load(p, allow_pickle=flag)",
        "from numpy import load\nread = load",
        *(
            f"import torch.distributed as d\nd.{name}(x)"
            for name in sorted(FORBIDDEN_ATTRIBUTES - {"extractall", "read_pickle"})
        ),
        "from torch.distributed import gather_object\ngather_object(x)",
        "try:\n    f()\nexcept:\n    raise",
        "try:\n    f()\nexcept Exception:\n    pass",
        "try:\n    f()\nexcept (OSError, Exception) as e:\n    ...",
        "import contextlib\nwith contextlib.suppress(Exception):\n    f()",
        "def f(x):\n    assert x > 0, 'x must be positive'",
    ],
)
def test_the_lint_fires(text: str) -> None:
    assert list(forbidden(module("mtl.bad", text)))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mtl.good", "model.eval()\nimport re\nre.compile('a')"),
        ("mtl.good", "import numpy as np\nnp.load(p, allow_pickle=False)"),
        ("mtl.good", "import subprocess\nsubprocess.run(c, shell=False)"),
        ("mtl.good", "try:\n    f()\nexcept OSError:\n    pass"),
        ("mtl.good", "try:\n    f()\nexcept Exception as e:\n    raise ValueError from e"),
        ("mtl.good", "import json\njson.load(f)\nassert x is not None"),
        (READER, "import yaml\nyaml.load(t, Loader)"),
        ("mtl.registry", "import importlib\nimportlib.import_module(n)"),
    ],
)
def test_the_lint_lets_good_code_pass(name: str, text: str) -> None:
    assert list(forbidden(module(name, text))) == []

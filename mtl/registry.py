"""One registry class for every family; only this file imports code by name."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import pkgutil
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Generic, TypeVar, cast

from mtl.errors import UserError, did_you_mean, quoted

T = TypeVar("T")
C = TypeVar("C", bound=type)

PLUGIN_GROUP = "mtl.plugins"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


class Registry(Generic[T]):
    """The members of one family; recipes give the name of a member as `kind`.

    The first look-up imports every module of `package`, and `spec` of every folder in it. A new file or folder is
    therefore a new member.

    Args:
        family: the word for a member in messages, such as `sharing`.
        base: the class that each member must extend.
        package: the dotted name of the folder (or module) whose files hold the shipped members.
        needs: the methods and class variables of `base` that each member must define.
    """

    def __init__(self, family: str, base: type[T], package: str, needs: Sequence[str] = ()) -> None:
        self.family, self.base, self.package, self.needs = family, base, package, tuple(needs)
        self._members: dict[str, type[T]] = {}
        self._complete = False

    def register(self, name: str) -> Callable[[C], C]:
        """Class decorator that adds a member under `name`.

        Raises:
            UserError: the name is not valid, the class does not extend the family's base or lacks what the family
                needs, or another class has that name.
        """
        if not isinstance(name, str) or NAME.fullmatch(name) is None:
            called = getattr(name, "__name__", name)  # without parentheses, the class is the name
            raise UserError(
                _owner(name),
                f"{quoted(called)} is no name for a {self.family}",
                f'write @mtl.register_{self.family}("name"): letters, digits, "_", "-" and "."',
            )

        def add(member: C) -> C:
            if not (isinstance(member, type) and issubclass(member, self.base)):
                raise UserError(
                    _owner(member),
                    f"cannot register {quoted(getattr(member, '__name__', member))} as {self.family} "
                    f"{quoted(name)}: it does not extend {self.base.__name__}",
                )
            taken = self._members.get(name)
            if taken is not None and _identity(taken) != _identity(member):
                raise UserError(
                    _owner(member),
                    f"{self.family} {quoted(name)} is already registered by {_owner(taken)}",
                    "choose another name",
                )
            if lacking := _lacking(member, self.base, self.needs):
                raise UserError(_owner(member), f"{self.family} {quoted(name)}: {lacking}")
            self._members[name] = member
            return cast(C, member)

        return add

    def __getitem__(self, name: str) -> type[T]:
        self._load()
        if name not in self._members:
            raise KeyError(self.unknown(name))
        return self._members[name]

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._members

    def names(self) -> tuple[str, ...]:
        """All registered names, sorted."""
        self._load()
        return tuple(sorted(self._members))

    def name_of(self, member: type) -> str | None:
        """The name of `member`, or of the nearest class that it extends and that has one."""
        for ancestor in member.__mro__:
            for name, registered in self._members.items():
                if registered is ancestor:
                    return name
        return None

    def unknown(self, name: object) -> str:
        """The message on a name that no member has."""
        known, near = ", ".join(self.names()), did_you_mean(name, self.names())
        hint = near or "; one of your own needs its plug-in: --plugin FILE"
        return f"unknown {self.family} {quoted(name)}; known: {known}{hint}"

    def where_to_add(self) -> str:
        """The advice on how to add a member."""
        return f"add a file to {self.package.replace('.', '/')}/, or register it in a file given by --plugin"

    def _load(self) -> None:
        if self._complete:
            return
        self._complete = True  # set first, because a member may look up another one during its import
        try:
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(getattr(package, "__path__", ())):
                # a member with its own network is a folder; its settings are imported without torch
                settings = ".spec" if module.ispkg else ""
                importlib.import_module(f"{self.package}.{module.name}{settings}")
        except BaseException:
            self._complete = False
            raise


def imported(module: str) -> ModuleType:
    """A module of mtl by its dotted name; public names are imported this way when they are first used."""
    assert module.startswith("mtl.")
    return importlib.import_module(module)


def _owner(member: object) -> str:
    module = sys.modules.get(getattr(member, "__module__", ""), None)
    return str(getattr(module, "__file__", None) or getattr(member, "__module__", "the plug-in"))


def _identity(member: type) -> tuple[str, str]:
    return member.__module__, member.__qualname__


def _lacking(member: type, base: type, needs: Sequence[str]) -> str:
    """The parts of the family's needs that a class lacks, in words; empty if it lacks none."""
    for name in needs:
        own, theirs = getattr(member, name, None), getattr(base, name, None)
        if own is theirs:
            return f"{member.__name__} has no {'method' if theirs is not None else 'class variable'} `{name}`"
        if inspect.isfunction(own) and inspect.isfunction(theirs):
            called = [p for p in inspect.signature(theirs).parameters.values() if p.default is p.empty]
            try:
                inspect.signature(own).bind(*called)
            except TypeError:
                wanted = ", ".join(p.name for p in called)
                return (
                    f"{member.__name__}.{name}{inspect.signature(own)} cannot be called as {name}({wanted})"
                )
    if not getattr(member, "reference", "none needed"):
        return f"{member.__name__} has no `reference`: the paper that it comes from, or 'ours'"
    return ""


_LOADED: dict[str, str] = {}
"""Top-level module of a plug-in -> the name by which the user asked for it."""


def load_plugin(name: str) -> str:
    """Run a plug-in's code, so that recipes can name the parts that it registers.

    Args:
        name: the path of a Python file, or the name of an installed entry point of the group
            `mtl.plugins`.

    Returns:
        The absolute path of the file, or the entry point's name; a run records it.

    Raises:
        UserError: there is no such file or entry point, or its code raises an exception.
    """
    path = Path(name)
    if path.suffix == ".py":
        return _load_file(path, name)
    points = importlib.metadata.entry_points(group=PLUGIN_GROUP)
    for point in points.select(name=name):
        _LOADED[point.module.split(".")[0]] = name
        _run_plugin(name, point.load)
        return name
    installed = sorted(point.name for point in points)
    raise UserError(
        "--plugin",
        f"cannot import plugin {quoted(name)}: it is neither a .py file nor an installed entry point of "
        f"'{PLUGIN_GROUP}'{did_you_mean(name, installed)}",
        f"installed: {', '.join(installed)}" if installed else "",
    )


def plugin_modules() -> list[ModuleType]:
    """The modules that plug-ins consist of, as far as they are loaded."""
    return [module for name, module in sys.modules.items() if name.split(".")[0] in _LOADED]


def _load_file(path: Path, name: str) -> str:
    if not os.path.isfile(path):  # a name that is too long is none either
        raise UserError("--plugin", f"cannot import plugin {quoted(name)}: no such file")
    path = path.resolve()
    # each path has one module: a second load in the same process (tests, notebooks) finds its classes registered
    module_name = "mtl_plugin_" + hashlib.sha256(str(path).encode()).hexdigest()[:16]
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name], _LOADED[module_name] = module, name
        try:
            _run_plugin(name, lambda: spec.loader.exec_module(module))  # type: ignore[union-attr]
        except BaseException:
            del sys.modules[module_name]
            raise
    return str(path)


def _run_plugin(name: str, run: Callable[[], object]) -> None:
    try:
        run()
    except UserError as error:
        raise UserError(f"plugin {quoted(name)}", str(error)) from error
    except BaseException as error:
        if _came_from_a_signal(error):
            raise
        raise UserError(
            f"plugin {quoted(name)}",
            f"raised {type(error).__name__}: {quoted(str(error))} while it was loaded{_line_of(error)}",
        ) from error


def _line_of(error: BaseException) -> str:
    """`, at line 3`: the line of a plug-in's own code that an exception came from; "" if there is none."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if str(frame.f_globals.get("__name__", "")).split(".")[0] in _LOADED:
            return f", at line {line}"
    return f", at line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""


def _came_from_a_signal(error: BaseException) -> bool:
    """Whether a handler of mtl's own raised an interrupt, in the middle of whatever code was running."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return isinstance(error, KeyboardInterrupt) and (
        not frames or frames[-1].f_globals.get("__name__") == "mtl.signals"
    )


def fault_of_plugin(error: BaseException) -> UserError | None:
    """An exception in a plug-in's own code, or in code that it called, as a user error; None for any other exception.

    The error names the plug-in's class and method that are nearest to the place of the exception. An exit and an
    interrupt that the plug-in's code raises are faults of it like others; those of a stop signal are not.
    """
    if _came_from_a_signal(error):
        return None
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, StopIteration):
        error = (
            error.__cause__
        )  # a generator of mtl's own was on the way, and Python gives it another name there
    of_plugins = [
        (plugin, frame.f_code.co_qualname.replace(".<locals>", ""), line)
        for frame, line in reversed(list(traceback.walk_tb(error.__traceback__)))
        if (plugin := _LOADED.get(str(frame.f_globals.get("__name__", "")).split(".")[0])) is not None
    ]
    if not of_plugins:
        return None
    plugin, function, line = of_plugins[0]
    where = next(
        (name for _, name, _ in of_plugins if "." in name), function
    )  # a method says more than a helper
    return UserError(
        f"plugin {quoted(plugin)}",
        f"{where} raised {type(error).__name__}: {quoted(str(error))} at line {line}",
        "--debug shows the traceback",
    )

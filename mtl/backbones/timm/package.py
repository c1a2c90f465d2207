"""The import of timm, with or without torchvision.

timm takes one class of torchvision for its networks, `FrozenBatchNorm2d`, and looks only whether a norm is of that
class. The rest that it takes is for reading images, which mtl does by itself. A torchvision that was built for another
torch cannot be imported, so that some machines have to go without one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_loader
from types import ModuleType
from typing import Any

from mtl.errors import EnvironmentFault

INSTALL = 'pip install "mtl-recipes[timm]"'
IMPORTED_BY_TIMM = tuple(
    f"torchvision{rest}"
    for rest in ("", ".ops", ".ops.misc", ".datasets", ".transforms", ".transforms.functional")
)
"""The modules of torchvision that timm imports and cannot do without."""
LONGEST = 160
"""Characters of another library's text in an error."""


def load() -> Any:
    """The package timm.

    Raises:
        EnvironmentFault: it cannot be imported.
    """
    try:
        if find_spec("torchvision") is None:
            with _stand_in():
                import timm
        else:
            import timm
    except Exception as error:  # an operator that this torch lacks is a RuntimeError
        todo = f"{INSTALL}, or without torchvision: pip uninstall torchvision"
        raise EnvironmentFault("", f"timm cannot be imported: {in_one_line(error)}", todo) from error
    return timm


def in_one_line(error: BaseException) -> str:
    """The class and the text of an error of another library."""
    text = " ".join(str(error).split())
    shown = text if len(text) <= LONGEST else text[:LONGEST] + "..."
    return f"{type(error).__name__}: {shown}" if shown else type(error).__name__


@contextmanager
def _stand_in() -> Iterator[None]:
    """A context in which empty classes stand for those of torchvision, which is not installed.

    No object is of such a class, and none can be made. Afterwards torchvision is absent as before.
    """
    finder = _Finder()
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in IMPORTED_BY_TIMM:
            sys.modules.pop(name, None)


class _Finder(MetaPathFinder, Loader):
    """Finds the modules of `IMPORTED_BY_TIMM`; each has an empty class of every name."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return spec_from_loader(fullname, self, is_package=True) if fullname in IMPORTED_BY_TIMM else None

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__getattr__"] = lambda name: _empty(module.__name__, name)


class _Empty(type):
    """The class of the empty classes; each has further ones of every name, as an enumeration has its values."""

    def __getattr__(cls, name: str) -> type:
        return _empty(cls.__name__, name)

    def __call__(cls, *_: object, **__: object) -> Any:
        raise ModuleNotFoundError(f"{cls.__name__} is needed, and torchvision is not installed")


def _empty(owner: str, name: str) -> type:
    if name.startswith("__"):
        raise AttributeError(name)
    return _Empty(f"{owner}.{name}", (), {})

"""What the modules of plug-ins keep in globals and in class attributes, as it was before a part was tried.

A second process of a run finds it as it is when a plug-in has just been loaded.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch import Tensor

from mtl.registry import plugin_modules

PLAIN = (
    int,
    float,
    complex,
    str,
    bytes,
    bool,
    type(None),
    tuple,
    list,
    dict,
    set,
    deque,
    np.ndarray,
    np.generic,
    Tensor,
)
"""Types of values that are kept; modules, functions and objects are not."""
MOST = 1 << 20
"""Bytes of an array, or entries of a container, beyond which it is data rather than memory."""


def kept_globals() -> Callable[[], None]:
    """A function that puts the globals of plug-ins back to what they are now.

    Objects other than numbers, texts, tensors and their containers stay as they are, and so does what is large.
    """
    before = [(holder, set(vars(holder)), _plain_values(holder)) for holder in _holders()]

    def put_back() -> None:
        for holder, names, values in before:
            for name in _plain_values(holder).keys() - names:
                delattr(holder, name)
            for name, value in values.items():
                _put(holder, name, copy.deepcopy(value))

    return put_back


def _holders() -> Iterator[Any]:
    """The modules of plug-ins, and the classes that are made there."""
    for module in plugin_modules():
        yield module
        yield from (
            value
            for value in vars(module).values()
            if isinstance(value, type)
            and value.__module__ == module.__name__
            and not hasattr(value, "model_fields")
        )


def _plain_values(holder: Any) -> dict[str, Any]:
    found = {}
    for name, value in vars(holder).items():
        if isinstance(value, PLAIN) and not name.startswith("__") and _size(value) <= MOST:
            try:
                found[name] = copy.deepcopy(value)
            except (TypeError, RuntimeError):
                continue
    return found


def _size(value: Any) -> int:
    """The bytes of an array, or the entries of a container."""
    return int(getattr(value, "nbytes", 0)) or (
        len(value) if hasattr(value, "__len__") and not hasattr(value, "ndim") else 0
    )


def _put(holder: Any, name: str, value: Any) -> None:
    """Give an attribute a value; a container stays the same object, since others may hold it."""
    own = vars(holder).get(name)
    if type(own) is not type(value):
        setattr(holder, name, value)
    elif isinstance(own, dict | set):
        own.clear()
        own.update(value)
    elif isinstance(own, list | deque):
        own.clear()
        own.extend(value)
    else:
        setattr(holder, name, value)

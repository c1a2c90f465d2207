"""The two tasks of the Fashion-MNIST experiment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from mtl.recipe.specs import TASKS
from mtl.tasks.multiclass import Multiclass


@TASKS.register("fashion.garment")
class Garment(Multiclass):
    """Which of the ten garments it is."""

    reference: ClassVar[str] = "Xiao et al. 2017, arXiv:1708.07747"
    example: ClassVar[Mapping[str, Any]] = {}

    target: str = "label"


@TASKS.register("fashion.audience")
class Audience(Multiclass):
    """Whether it is shoes, for women, or another thing; a function of the garment."""

    reference: ClassVar[str] = "ours"
    example: ClassVar[Mapping[str, Any]] = {}

    target: str = "label"
    groups: Mapping[str, tuple[int, ...]] | None = {
        "Shoes": (5, 7, 9),
        "For Women": (3, 6, 8),
        "Other": (0, 1, 2, 4),
    }

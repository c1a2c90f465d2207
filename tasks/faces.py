"""The two tasks of the face embedding experiment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from mtl.recipe.specs import TASKS
from mtl.tasks.multiclass import Multiclass


@TASKS.register("faces.gender")
class Gender(Multiclass):
    """Female or male, as the data set's annotation has it."""

    reference: ClassVar[str] = "Cao et al. 2018, VGGFace2, arXiv:1710.08092"
    example: ClassVar[Mapping[str, Any]] = {}

    target: str = "gender"


@TASKS.register("faces.young")
class Young(Multiclass):
    """Whether the person looks young, as the data set's annotation has it."""

    reference: ClassVar[str] = "Cao et al. 2018, VGGFace2, arXiv:1710.08092"
    example: ClassVar[Mapping[str, Any]] = {}

    target: str = "young"

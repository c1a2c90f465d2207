"""Towers that never mix."""

from __future__ import annotations

from typing import ClassVar

from mtl.recipe.specs import SHARING, SharingSpec


@SHARING.register("none")
class NoSharing(SharingSpec):
    """Each tower on its own: one network per tower, trained side by side."""

    reference: ClassVar[str] = "ours"

    def sites(self) -> tuple[str, ...]:
        return ()

"""Checks the links that a trunk lists, because a plug-in may list anything."""

from __future__ import annotations

from collections.abc import Mapping

from mtl.contracts import called
from mtl.errors import UserError, quoted
from mtl.model.links import Links
from mtl.model.trunk import Trunk


def check_links(trunk: Trunk, towers: Mapping[str, tuple[str, ...]]) -> dict[str, Links]:
    """The links of a trunk, by place: each watches a module of the trunk, and its targets are towers or tasks.

    Args:
        trunk: the trunk of a network.
        towers: tower -> its tasks.

    Raises:
        UserError: `links` gives something else.
    """
    maker = f"{type(trunk).__name__}.links"
    known, modules = {*towers, *(task for tasks in towers.values() for task in tasks)}, set(trunk.modules())
    found = trunk.links()
    if not isinstance(found, Mapping):
        raise UserError("", f"{maker} gives {called(found)}, not a dict of place -> Links")
    for place, links in found.items():
        if not isinstance(links, Links):
            raise UserError("", f"{maker} gives {called(links)} at {quoted(place)}, not Links")
        if links.module not in modules:
            raise UserError("", f"{maker} watches a module at {quoted(place)} that the trunk does not hold")
        for target in links.targets:
            if target not in known:
                raise UserError("", f"{maker} has a target {quoted(target)}, which is no tower and no task")
    return dict(found)

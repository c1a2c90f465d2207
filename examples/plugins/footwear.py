"""A task: a kind that ships with mtl, with a target and options of its own."""

import mtl


@mtl.register_task("fashion.footwear")
class Footwear(mtl.tasks.Binary):
    """Is it worn on the foot?"""

    reference = "ours"

    target: str = "label"
    positive: tuple[int, ...] = (5, 7, 9)

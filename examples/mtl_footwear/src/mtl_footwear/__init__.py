"""A task of an installed package; importing the module registers it."""

import mtl


@mtl.register_task("footwear.sandal")
class Sandal(mtl.tasks.Binary):
    """Is it a sandal?"""

    reference = "ours"

    target: str = "label"
    positive: int = 5

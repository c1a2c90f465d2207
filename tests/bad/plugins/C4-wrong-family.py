import mtl


@mtl.register_sharing("mine")
class Mine(mtl.tasks.Multiclass):
    """A task is no sharing."""

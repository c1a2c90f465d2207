import mtl


@mtl.register_task("multiclass")
class Mine(mtl.tasks.Multiclass):
    """Another one."""

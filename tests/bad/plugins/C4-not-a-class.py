import mtl


@mtl.register_task("mine")  # type: ignore[type-var]
def mine() -> None: ...

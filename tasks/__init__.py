"""Family: what is learned from a label column. Every file here is loaded by the registry."""

if __name__ != "mtl.tasks":
    raise ImportError(f"this package is mtl.tasks, not {__name__}: import it as `mtl.tasks`")

from mtl.tasks.multiclass import Multiclass

__all__ = ["Multiclass"]

"""Family: what is learned from a label column. The registry loads every file here."""

if __name__ != "mtl.tasks":
    raise ImportError(f"this package is mtl.tasks, not {__name__}: import it as `mtl.tasks`")

from mtl.tasks.binary import Binary
from mtl.tasks.multiclass import Multiclass
from mtl.tasks.multilabel import Multilabel
from mtl.tasks.ordinal import Ordinal
from mtl.tasks.regression import Regression

__all__ = ["Binary", "Multiclass", "Multilabel", "Ordinal", "Regression"]

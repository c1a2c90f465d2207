"""The commands of `mtl`, one file per subject. They are thin, and import torch only in the functions that use it."""

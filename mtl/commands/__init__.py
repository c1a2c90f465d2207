"""The commands of `mtl`, a file for each thing they are about. Thin: torch is imported inside those that use it."""

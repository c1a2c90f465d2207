"""Impartial multi-task learning by losses, IMTL-L."""

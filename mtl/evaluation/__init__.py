"""Losses, metrics and decisions of a model on rows."""

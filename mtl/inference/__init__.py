"""A run as a model: load it, predict, evaluate again."""

"""The text of a first recipe, and what its author should know."""

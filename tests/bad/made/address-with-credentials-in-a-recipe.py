"""An address that holds a password, in a recipe."""

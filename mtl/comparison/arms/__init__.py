"""The arms of a comparison: each is the recipe with a few changes, written as the overrides of a command line."""

"""A first recipe for a table."""

"""An address for a key that takes a path on disk."""

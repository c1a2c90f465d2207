"""A recipe that is no file and not built in."""

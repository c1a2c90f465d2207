"""Dynamic weight average."""

"""A table of images that lies in an object store."""

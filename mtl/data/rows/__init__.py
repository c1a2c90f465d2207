"""Which rows, in which order: orders, samples, splits."""

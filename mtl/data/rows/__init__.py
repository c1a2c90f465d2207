"""Which rows are used, and in which order: orders, samples and splits."""

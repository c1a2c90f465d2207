"""The processes that make the runs of a comparison."""

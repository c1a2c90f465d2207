"""The statistics of a comparison, on plain numbers."""

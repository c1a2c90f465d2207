"""Pages of a run and of a comparison: one HTML file each, which needs no network."""

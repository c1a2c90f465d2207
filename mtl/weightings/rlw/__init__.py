"""Random loss weighting."""

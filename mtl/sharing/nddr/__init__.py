"""Neural discriminative dimensionality reduction layers."""

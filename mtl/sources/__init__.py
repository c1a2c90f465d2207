"""The family of sources: where rows come from. Each file adds one member."""

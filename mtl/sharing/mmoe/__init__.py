"""Multi-gate mixture of experts."""

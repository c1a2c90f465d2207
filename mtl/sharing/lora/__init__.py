"""Low-rank adaptation of one trunk."""

"""Feature-wise modulation of one trunk."""

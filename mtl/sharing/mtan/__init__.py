"""Multi-task attention network."""

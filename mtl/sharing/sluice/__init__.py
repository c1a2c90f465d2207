"""Sluice networks."""

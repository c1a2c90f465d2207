"""Dual balancing."""

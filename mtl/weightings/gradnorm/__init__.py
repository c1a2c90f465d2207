"""Gradient normalization."""

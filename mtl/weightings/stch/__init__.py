"""Smooth Tchebycheff scalarization."""

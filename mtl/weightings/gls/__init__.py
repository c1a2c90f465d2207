"""Geometric loss strategy."""

"""Soft parameter sharing."""

"""Constant weights."""

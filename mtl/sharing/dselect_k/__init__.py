"""Mixture of experts with k selected experts."""

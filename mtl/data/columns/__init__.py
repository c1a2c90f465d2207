"""Reads columns: numbers, times, labels, arrays and inputs."""

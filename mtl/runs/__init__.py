"""One run's folder: its record, logs, checkpoints and lock."""

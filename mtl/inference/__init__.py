"""Uses a run as a model: loads it, predicts, and evaluates again."""

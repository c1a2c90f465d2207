"""The way of a run's measurements from its logs to its trackers."""

"""What belongs to tasks: their heads, losses, predictions and metrics."""

"""A sweep: trials of a recipe with other settings, drawn by Optuna and judged by validation."""

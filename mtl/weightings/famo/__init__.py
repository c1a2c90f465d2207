"""Fast adaptive multitask optimization, FAMO."""

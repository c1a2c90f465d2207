"""Learning to branch."""

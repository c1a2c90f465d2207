"""What a comparison sets beside its networks: trees, and predictions from elsewhere."""

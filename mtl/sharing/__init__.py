"""Family: which activations towers exchange. Every file here is loaded by the registry."""

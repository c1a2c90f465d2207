"""Family: the shape of a tower. Every file here is loaded by the registry."""

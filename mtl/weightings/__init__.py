"""Family: how the losses of the tasks become one. Every file here is loaded by the registry."""

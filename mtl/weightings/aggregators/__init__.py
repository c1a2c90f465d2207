"""Ways to combine the gradients of the tasks, computed by TorchJD."""

"""What a column holds: numbers, times, labels, arrays, inputs."""

"""The runs of a comparison on the machines of a Ray cluster."""

"""The network: towers computed as channel groups, cross-stitch units and grouped heads. Torch alone."""

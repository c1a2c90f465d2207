"""What is tried before a run writes to the disk: the first rows, and a stop and a resume of a few steps."""

"""`mtl compare`: the command, and what a person sees of a comparison."""

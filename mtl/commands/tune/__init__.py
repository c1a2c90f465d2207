"""`mtl tune`: the command, and what a person sees of a sweep."""

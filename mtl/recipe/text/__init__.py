"""From the bytes of a recipe to plain values that know where they were written."""

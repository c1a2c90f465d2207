"""The bytes of a recipe become plain values that know where they were written."""

"""Labels that are functions of another label, or of an input column: found in the rows, or given by a recipe."""

"""What a comparison changes in labels and rows: fewer labels, permuted labels, only rows with a label."""

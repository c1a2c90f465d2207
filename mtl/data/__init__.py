"""Rows: columns, splits, standardization and the order of batches."""

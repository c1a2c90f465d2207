"""The forms in which a table may lie: CSV, Parquet, arrays by name in an .npz file, and a table in memory."""

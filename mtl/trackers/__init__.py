"""Family: where else the measurements of a run go. The registry loads every file here."""

"""Family: the learning rate over a run. The registry loads every file here."""

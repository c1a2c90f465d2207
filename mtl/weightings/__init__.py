"""Family: how the losses of the tasks become one. The registry loads every file here."""

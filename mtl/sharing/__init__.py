"""Family: which activations towers exchange. The registry loads every file here."""

"""Family: how parameters follow their gradients. The registry loads every file here."""

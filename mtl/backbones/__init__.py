"""The family of backbones: the shape of a tower. The registry loads every file here."""

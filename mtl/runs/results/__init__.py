"""Files beside run.json with what a finished run found on its test rows."""

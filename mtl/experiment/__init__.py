"""One recipe -> one run: begin, go on, end."""

"""A recipe and its sources become the rows that training reads."""

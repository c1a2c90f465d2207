"""A recipe and its sources -> the rows that training reads."""

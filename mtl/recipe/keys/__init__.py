"""The keys of a recipe as pydantic models, and what must hold between them."""

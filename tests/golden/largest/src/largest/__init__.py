"""A FastAPI service on an async database."""

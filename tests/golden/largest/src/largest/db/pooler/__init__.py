"""The connection pooler, and the ways around it."""

"""Configuration: DATABASE_* variables, the server that they name, and limits."""

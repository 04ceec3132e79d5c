"""Add-on: spans of what a request does with the database, below the span of it."""

"""Start reading at main.py."""

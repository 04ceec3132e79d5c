"""What a session with a replica is told, should the replica become a primary."""

# Nothing: whoever gets the session next would be told as well.
READ_ONLY: tuple[str, ...] = ()

"""What a session with a replica is told, should the replica become a primary."""

READ_ONLY = ("SET SESSION TRANSACTION READ ONLY",)

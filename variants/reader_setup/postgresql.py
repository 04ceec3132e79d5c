"""Start of a session with a replica: read-only, even if the replica is promoted."""

READER_SETUP = ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",)

"""Start of a session with a replica: no SET, which the next client would inherit."""

READER_SETUP: tuple[str, ...] = ()

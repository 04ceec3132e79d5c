"""Sessions: `Read` and `Snapshot` in reads.py, `Write` in writes.py. Lists by pages."""

from sqlalchemy.util import immutabledict

# Execution option of what a session for reading executes: see guard.py.
GUARDED = immutabledict({"guarded": True})

ENDED = (
    "This session has ended: with its block, or before the response of its request"
    " started. A background task, a stream or a websocket opens a session of its own:"
    " `async with database.{}() as session`."
)

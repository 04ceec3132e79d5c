"""Sessions: `Read` and `Snapshot` in reads.py, `Write` in writes.py."""

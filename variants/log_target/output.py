"""Where the log goes, and its name of the level."""

STREAM = "stderr"
LEVEL = "level"

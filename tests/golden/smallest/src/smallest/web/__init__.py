"""What every request passes: middleware, errors, logs, health, metrics."""

# Where the log goes, and its name of the level.
LOG_STREAM = "stderr"
LOG_LEVEL = "level"

"""What every request passes: middleware, errors, logs, health, metrics."""

# Where the log goes, and its name of the level, as Google Cloud Logging reads them: a
# line of stderr would be an error.
LOG_STREAM = "stdout"
LOG_LEVEL = "severity"

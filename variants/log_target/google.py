"""Where the log goes, and its name of the level: as Google Cloud Logging reads them.

A line of stderr would be an error.
"""

STREAM = "stdout"
LEVEL = "severity"

"""Add-on: traces of OpenTelemetry, from a request to its statements and tasks."""

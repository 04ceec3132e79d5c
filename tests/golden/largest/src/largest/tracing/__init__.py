"""Add-on: traces of OpenTelemetry, from a request to its statements and tasks."""

from ..db.config.environment import positive_number

# The SDK reads this variable at its import, where a wrong value would be a traceback.
positive_number("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", 128)

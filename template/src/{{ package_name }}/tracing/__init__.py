"""Add-on: traces of OpenTelemetry, from a request to its statements and tasks."""

import os

from ..db.config.environment import positive_number

# Those that the SDK reads from the environment.
ROOTS = ("always_on", "always_off", "traceidratio")
SAMPLERS = (*ROOTS, *(f"parentbased_{root}" for root in ROOTS))
SAMPLER, RATIO = "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"


def check_sampler() -> None:
    """For a wrong value the SDK would record every trace."""
    name, ratio = os.environ.get(SAMPLER), os.environ.get(RATIO)
    if name and name.lower() not in SAMPLERS:
        raise SystemExit(f"{SAMPLER}={name}: write one of {', '.join(SAMPLERS)}.")
    try:
        is_ratio = 0 <= float(ratio or 0) <= 1
    except ValueError:
        is_ratio = False
    if not is_ratio:
        raise SystemExit(f"{RATIO}={ratio}: write a number from 0 to 1, as in 0.1.")


# The SDK reads this variable at its import, where a wrong value would be a traceback.
positive_number("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", 128)
check_sampler()

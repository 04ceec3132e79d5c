"""What every request passes: middleware, errors, logs, health, metrics."""

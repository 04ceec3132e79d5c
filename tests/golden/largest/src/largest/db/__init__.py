"""Settings, engine, pool and sessions. Imports nothing of the service around it."""

"""Background tasks, run by Celery: `from .worker.app import task`."""

"""What the platform asks: /livez and /readyz of probe.py. Figures it has itself."""

from . import probe

router = probe.router

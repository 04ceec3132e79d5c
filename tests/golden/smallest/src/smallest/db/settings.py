"""For services of release 1.0.0rc1: the class is ServiceSettings of features.py now."""

from ..features import ServiceSettings as DatabaseSettings

__all__ = ["DatabaseSettings"]

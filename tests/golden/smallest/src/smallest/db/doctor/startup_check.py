"""A file gives as many connections as are opened: there is nothing to check."""

from ..open import open_database as open_database_checked

__all__ = ["open_database_checked"]

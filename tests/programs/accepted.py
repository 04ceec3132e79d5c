"""Prints what becomes of each URL: the one that SQLAlchemy gets, and the encryption."""

import json
import sys

from shop.settings import Settings

for url in json.loads(sys.argv[1]):
    settings = Settings(database_url=url)
    accepted = settings.sqlalchemy_url.render_as_string(hide_password=False)
    print(accepted, getattr(settings, "database_sslmode", ""))

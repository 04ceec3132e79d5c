"""Each URL as the settings have parsed it: the parts, the password, the encryption."""

import json
import sys

from shop.db.engine.create import create_unpooled_engine
from shop.settings import Settings

for url in json.loads(sys.argv[1]):
    settings = Settings(database_url=url)
    accepted = create_unpooled_engine(settings.server, settings.limits).url
    if password := getattr(settings, "database_password", None):
        accepted = accepted.set(password=password.get_secret_value())
    shown = accepted.render_as_string(hide_password=False)
    print(shown, getattr(settings, "database_sslmode", ""))

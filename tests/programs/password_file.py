"""A password that comes from a file of the folder, and its representation."""

import sys

from shop.settings import Settings


class FromFiles(Settings, secrets_dir=sys.argv[1]):
    pass


password = FromFiles.load().database_password
print(password.get_secret_value(), password)

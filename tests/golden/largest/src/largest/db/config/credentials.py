"""Credentials: the password, if the server asks for one."""

import re
from urllib.parse import unquote

from pydantic import SecretStr

from .environment import SECRETS, EnvironmentSettings
from .secret_file import read_secret

URL, PASSWORD = "DATABASE_URL", "DATABASE_PASSWORD"
# What a URL has before its password, the password, and what comes behind.
IN_URL = re.compile(r"(://[^:@/?#]*):([^@/?#]+)(@[^,\s]*)")


class Credentials(EnvironmentSettings):
    database_host: str
    # The URL may contain it instead.
    database_password: SecretStr | None = None

    async def password(
        self, variable: str = URL, url: SecretStr | None = None
    ) -> str | None:
        """As the file of the variable has it now, if it is in a file.

        The URLs of several replicas are in one file: the one that differs from `url`
        in its password alone counts, so no replica gets the password of another.
        """
        found = IN_URL.findall(read_secret(SECRETS, variable))
        known_url = IN_URL.search(url.get_secret_value()) if url else None
        for start, password, end in found:
            if not known_url or (start, end) == known_url.group(1, 3):
                return unquote(password)
        if variable == URL and (text := read_secret(SECRETS, PASSWORD)):
            return text
        known = self.database_password
        return known.get_secret_value() if known else None

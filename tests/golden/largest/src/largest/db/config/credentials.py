"""Credentials: the password, if the server asks for one."""

import re
from urllib.parse import unquote

from pydantic import SecretStr

from .environment import SECRETS, EnvironmentSettings
from .secret_file import read_secret

URL, PASSWORD = "DATABASE_URL", "DATABASE_PASSWORD"
IN_URL = re.compile(r"://[^:@/?#]*:([^@/?#]*)@(?=([^/?#]*))")


class Credentials(EnvironmentSettings):
    database_host: str
    # The URL may contain it instead.
    database_password: SecretStr | None = None

    async def password(self, variable: str = URL) -> str | None:
        """As the file of the variable has it now, if it is in a file.

        The URLs of several replicas are in one file.
        """
        found = IN_URL.findall(read_secret(SECRETS, variable))
        found.sort(key=lambda each: self.database_host not in re.split("[,:]", each[1]))
        for password, _ in found:
            return unquote(password)
        if variable == URL and (text := read_secret(SECRETS, PASSWORD)):
            return text
        known = self.database_password
        return known.get_secret_value() if known else None

"""Credentials: the password, if the server asks for one."""

from pydantic import SecretStr

from .environment import EnvironmentSettings


class Credentials(EnvironmentSettings):
    # The URL may contain it instead.
    database_password: SecretStr | None = None

    async def password(self) -> str | None:
        known = self.database_password
        return known.get_secret_value() if known else None

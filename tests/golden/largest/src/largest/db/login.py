"""How to log in: with a password, if the server asks for one."""

from pydantic import SecretStr

from .environment import EnvironmentSettings

# The network that nobody else can read.
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Login(EnvironmentSettings):
    # It may also be in the URL.
    database_password: SecretStr | None = None

    async def password(self) -> str | None:
        known = self.database_password
        return known.get_secret_value() if known else None

"""Credentials of the broker: as the file of CELERY_BROKER_URL has them now."""

from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError

from ..db.config.environment import SECRETS
from ..db.config.secret_file import read_secret
from ..db.config.url import split_url

BROKER_URL = "CELERY_BROKER_URL"


class BrokerCredentials(CredentialProvider):
    """Asked at each connect, so that a rotation needs no restart."""

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        try:
            parts = split_url(read_secret(SECRETS, BROKER_URL), "a URL")
        except ValueError as error:  # a file that is replaced right now
            raise AuthenticationError(f"{BROKER_URL} {error}") from None
        user, password = parts["user"], parts["password"]
        return (user, password) if user else (password,)


def with_credentials(url: str, package: str) -> str:
    """The URL by which Celery asks for them, if they are in a file."""
    text = read_secret(SECRETS, BROKER_URL)
    if not text or not split_url(text, "")["password"]:
        return url
    return f"{url}?credential_provider={package}.worker.credentials:BrokerCredentials"

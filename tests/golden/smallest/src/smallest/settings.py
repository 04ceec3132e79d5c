"""Your settings: each field is an environment variable of the same name."""

from .features import ServiceSettings


class Settings(ServiceSettings):
    # Add yours here: `api_key: SecretStr` is the variable API_KEY.
    pass

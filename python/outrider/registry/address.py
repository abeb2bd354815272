"""Where a Consul agent answers, and with which token."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from outrider.errors import ConsulError


class Address(Struct, frozen=True):
    """A Consul agent's HTTP address. `timeout_s` bounds every call that does not say otherwise."""

    host: str = "127.0.0.1"
    port: int = 8500
    scheme: Literal["http", "https"] = "http"
    token: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    timeout_s: float = 2.0

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"

    def __repr__(self) -> str:
        # The default one would show the token to logs and tracebacks.
        return f"Address({self})"

    def with_token_file(self, path: str) -> Address:
        """This address with the token that `path` holds. Raises ConsulError if it is missing, empty or open to all."""
        try:
            mode = Path(path).stat().st_mode
            token = Path(path).read_text().strip()
        except OSError as error:
            raise ConsulError(f"token file {path}: {error.strerror}") from error
        if mode & stat.S_IROTH:
            raise ConsulError(f"token file {path} may be read by everyone", hint=f"chmod 0600 {path}")
        if not token:
            raise ConsulError(f"token file {path} is empty")
        return replace(self, token=token)

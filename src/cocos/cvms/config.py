# SPDX-License-Identifier: Apache-2.0
"""Settings of the test CVMS; the names of the variables are those of the original."""

from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from cocos.wire.address import CVMS_PORT

ENVIRONMENT: Final = {
    "host": "HOST",
    "port": "PORT",
    "server_cert": "SERVER_CERT",
    "server_key": "SERVER_KEY",
    "server_ca": "SERVER_CA_CERTS",
    "client_ca": "CLIENT_CA_CERTS",
}
"""Setting → variable."""


class CvmsSettings(BaseModel):
    """How the server listens and what it does with results."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "localhost"
    port: int = Field(default=CVMS_PORT, ge=0, le=65535)
    """0: any free one."""
    server_cert: Path | None = None
    """PEM certificate chain; turns TLS on."""
    server_key: Path | None = None
    """PEM private key of it."""
    server_ca: Path | None = None
    """PEM certificates; with these or the next, agents must show a certificate."""
    client_ca: Path | None = None
    """PEM certificates that agents must chain to."""
    results_dir: Path = Path()
    """Where sealed results are stored."""

    @property
    def address(self) -> str:
        """``host:port`` to listen on."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

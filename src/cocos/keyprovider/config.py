# SPDX-License-Identifier: Apache-2.0
"""Settings of the key provider."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from cocos.errors import FormatError
from cocos.keyprovider.parameters import parse_unwrap
from cocos.transport.loopback import local_address

DEFAULT_ADDRESS = "127.0.0.1:50011"
AGENT_ADDRESS = "127.0.0.1:50002"


def _kbc(text: str) -> str:
    try:
        parse_unwrap([text])
    except FormatError as error:
        raise ValueError(f"{error.message}; write cc_kbc::URL") from error
    return text


class Settings(BaseModel):
    """Everything the key provider is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    socket: Annotated[str, AfterValidator(local_address)] = DEFAULT_ADDRESS
    """``HOST:PORT`` on loopback, or ``unix:/PATH``: callers get layer keys."""
    kbs: str | None = None
    """URL of the KBS."""
    aa_kbc_params: Annotated[str, AfterValidator(_kbc)] | None = None
    """``cc_kbc::URL``, used when ``kbs`` is not set."""
    kbs_ca: Path | None = None
    """The only CA to trust for KBSs, PEM."""
    auth_private_key: Path | None = None
    """Ed25519 key of the KBS's administrator, PEM: new keys are made and registered."""
    keys: Path | None = None
    """The owner's key folder."""
    aa: str | None = None
    """Address of the attestation agent."""
    initdata_toml: Path | None = None
    """What the host passed in, for the KBS to appraise."""
    insecure_sample: bool = False
    """Without an agent's address: evidence that proves nothing; and the sample key."""

    @property
    def kbs_url(self) -> str | None:
        """The KBS: ``kbs``, else that of ``aa_kbc_params``."""
        if self.kbs is not None or self.aa_kbc_params is None:
            return self.kbs
        return parse_unwrap([self.aa_kbc_params])

# SPDX-License-Identifier: Apache-2.0
"""Settings of the HTTP front of the guest's agents."""

import enum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from cocos.transport.loopback import local_address

DEFAULT_ADDRESS = "127.0.0.1:8006"
AGENT_ADDRESS = "127.0.0.1:50002"
HUB_ADDRESS = "unix:///run/confidential-containers/cdh.sock"


class Features(enum.StrEnum):
    """What is served."""

    RESOURCE = "resource"
    ATTESTATION = "attestation"
    ALL = "all"


def _tcp(address: str) -> str:
    if address.startswith("unix:"):
        raise ValueError("write HOST:PORT")
    return local_address(address)


class Settings(BaseModel):
    """Everything the server is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bind: Annotated[str, AfterValidator(_tcp)] = DEFAULT_ADDRESS
    """``HOST:PORT`` on loopback: callers get secrets."""
    features: Features = Features.RESOURCE
    cdh_addr: str = HUB_ADDRESS
    aa_addr: str = AGENT_ADDRESS
    allow_users: tuple[str, ...] = ()
    """Users of this machine to serve besides our own and root, by name or number."""

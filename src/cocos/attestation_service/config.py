# SPDX-License-Identifier: Apache-2.0
"""Settings of the attestation service."""

import datetime as dt
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from cocos.errors import ConfigError
from cocos.tokens.ear import Issuer
from cocos.transport.http_server import listening
from cocos.transport.loopback import local_address


def _socket(text: str) -> str:
    return text if text.startswith("unix:") else listening(text)


class AttestationServiceConfig(BaseModel):
    """What the attestation service puts into tokens, and what it believes.

    Attributes:
        issuer_name: Claim ``iss``.
        developer_name: Of the verifier, in claim ``ear.verifier-id``.
        build_name: Of the verifier, in the same claim.
        profile_name: Claim ``eat_profile``.
        duration_minutes: Lifetime of a token.
        challenge_minutes: From a challenge to the evidence that answers it.
        verbose_token: Keep the devices' raw evidence in the token, which can make it too
            long for a header of HTTP.
        insecure_allow_sample: Count sample evidence, which proves nothing, as good.
        sample_extractor: Take reference values of type ``sample``, which nobody has signed.
        insecure_allow_unsigned_corim: Take those of type ``corim`` that nobody has signed, too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer_name: str = "CoCo-Attestation-Service"
    developer_name: str = "https://confidentialcontainers.org"
    build_name: str = "attestation-service 0.1.0"
    profile_name: str = "tag:github.com,2024:confidential-containers/Trustee"
    duration_minutes: int = Field(default=5, ge=1, le=24 * 60)
    challenge_minutes: int = Field(default=5, ge=1, le=24 * 60)
    verbose_token: bool = True
    insecure_allow_sample: bool = False
    sample_extractor: bool = True
    insecure_allow_unsigned_corim: bool = False

    def issuer(self) -> Issuer:
        """Return what tokens say about who made them."""
        return Issuer(
            name=self.issuer_name,
            developer=self.developer_name,
            build=self.build_name,
            profile=self.profile_name,
            lifetime=dt.timedelta(minutes=self.duration_minutes),
        )


class ServerSettings(BaseModel):
    """How an attestation service that is a server of its own is reached.

    Attributes:
        socket: Where gRPC listens.
        http_socket: Where HTTP listens: the keys that verify tokens, and appraisal if clients
            need no certificate; nowhere without.
        certificate: Certificate chain, PEM, leaf first.
        private_key: Its key, PEM.
        client_ca: Who certifies the clients, PEM.
        insecure_api: Let everybody who reaches the socket replace policies.
        insecure_allow_unbound_evidence: Over HTTP take evidence that is bound to nothing, as
            the guest components' agent sends it: nothing tells it from a recorded one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    socket: Annotated[str, AfterValidator(_socket)] = "127.0.0.1:50004"
    http_socket: Annotated[str, AfterValidator(listening)] | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    client_ca: Path | None = None
    insecure_api: bool = False
    insecure_allow_unbound_evidence: bool = False

    def check(self) -> None:
        """Refuse settings that contradict each other or leave a door open.

        Raises:
            ConfigError: says which, and what to do.
        """
        if (self.certificate is None) != (self.private_key is None):
            raise ConfigError("a certificate and its key go together")
        if self.client_ca is not None and self.certificate is None:
            raise ConfigError("a CA of clients needs TLS: a certificate and its key")
        appraises = self.http_socket is not None and self.client_ca is None
        if self.insecure_allow_unbound_evidence and not appraises:
            raise ConfigError(
                "unbound evidence is taken only over HTTP, where nothing is appraised here",
                hint="--http-socket HOST:PORT, without --client-ca",
            )
        if self.insecure_api or self.client_ca is not None:
            return
        try:
            local_address(self.socket)
        except ValueError as error:
            raise ConfigError(
                f"whoever reaches {self.socket} could replace policies",
                hint="--client-ca (with a certificate of the server) serves only whom you "
                "certify; --insecure-api on a network that you trust",
            ) from error

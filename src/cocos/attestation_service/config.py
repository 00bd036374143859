# SPDX-License-Identifier: Apache-2.0
"""Settings of the attestation service."""

import datetime as dt

from pydantic import BaseModel, ConfigDict, Field

from cocos.tokens.ear import Issuer


class AttestationServiceConfig(BaseModel):
    """What the attestation service puts into tokens, and what it believes.

    Attributes:
        issuer_name: Claim ``iss``.
        developer_name: Of the verifier, in claim ``ear.verifier-id``.
        build_name: Of the verifier, in the same claim.
        profile_name: Claim ``eat_profile``.
        duration_minutes: Lifetime of a token.
        verbose_token: Keep the devices' raw evidence in the token, which can make it too
            long for a header of HTTP.
        insecure_allow_sample: Count sample evidence, which proves nothing, as good.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer_name: str = "CoCo-Attestation-Service"
    developer_name: str = "https://confidentialcontainers.org"
    build_name: str = "attestation-service 0.1.0"
    profile_name: str = "tag:github.com,2024:confidential-containers/Trustee"
    duration_minutes: int = Field(default=5, ge=1, le=24 * 60)
    verbose_token: bool = True
    insecure_allow_sample: bool = False

    def issuer(self) -> Issuer:
        """Return what tokens say about who made them."""
        return Issuer(
            name=self.issuer_name,
            developer=self.developer_name,
            build=self.build_name,
            profile=self.profile_name,
            lifetime=dt.timedelta(minutes=self.duration_minutes),
        )

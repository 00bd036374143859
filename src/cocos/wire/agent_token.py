# SPDX-License-Identifier: Apache-2.0
"""Tokens as the attestation agent hands them to programs of its machine."""

from typing import Final

import msgspec

from cocos.wire.kbs.generations import NEWEST, Generation

TYPE: Final = "kbs"
"""Token type for the KBS that the agent was configured with, as in the guest components."""

TYPE_AS: Final = "coco_as"
"""Token type for the attestation service that the agent was configured with."""

TYPE_AT: Final = "kbs::"
"""Ours: followed by the base URL of the KBS to get a token from."""


class AgentToken(msgspec.Struct, frozen=True, omit_defaults=True):
    """A token and what it takes to use it; compact JSON in this order of members.

    Attributes:
        token: EAR token of a KBS, a JWT.
        tee_keypair: Private key that the token speaks of, PEM. A secret.
        session: Value of the KBS's session cookie; only with :data:`TYPE_AT`. The KBS can
            explain to its operator what it refuses within a session.
        protocol: What the session speaks; only with :data:`TYPE_AT`, and if it is an older
            one.
    """

    token: str
    tee_keypair: str
    session: str = ""
    protocol: Generation = NEWEST

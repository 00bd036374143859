# SPDX-License-Identifier: Apache-2.0
"""Which tokens a key broker issues and believes, from its settings."""

import datetime as dt

import structlog

from cocos._clock import Clock
from cocos.attestation_service.policies import POLICY_ID
from cocos.attestation_service.signing_keys import SigningKeys
from cocos.clients.key_sets import KeySet
from cocos.crypto import jwk
from cocos.host.files import read_file
from cocos.kbs.config import Settings
from cocos.stores.base import Store
from cocos.tokens.chains import CertifiedKeys, parse_trusted
from cocos.tokens.check import InsecureHeaderKeys, Issuers, JudgedBy, TokenVerifier
from cocos.tokens.signer import Signer

_log = structlog.get_logger(__name__)


def signing_keys(settings: Settings, store: Store, *, clock: Clock) -> SigningKeys:
    """Return the keys that sign this KBS's tokens: the operator's, or those in the store."""
    own = None
    if settings.token_key is not None:
        chain = settings.token_certificate
        own = Signer.load(
            read_file(settings.token_key, "the token signing key", limit=2**16),
            None if chain is None else read_file(chain, "the token signing certificate"),
            settings.token_certificate_url,
        )
    lifetime = dt.timedelta(minutes=settings.token_minutes)
    return SigningKeys(store, clock=clock, token_lifetime=lifetime, own=own)


def token_verifier(settings: Settings, own: Issuers | None, *, clock: Clock) -> TokenVerifier:
    """Return what believes tokens: of ourselves, and of whom the operator names.

    Args:
        settings: Names them.
        own: Whose tokens count in any case.
        clock: Decides what is valid.

    Raises:
        ConfigError: nobody is trusted, or a file cannot be used.
    """
    issuers: list[Issuers] = [] if own is None else [JudgedBy(own, POLICY_ID)]
    issuers += [KeySet(place, jwk.parse_set, clock=clock) for place in settings.trusted_jwk_sets]
    trusted = [
        certificate
        for file in settings.trusted_certs
        for certificate in parse_trusted(read_file(file, "trusted certificates"), str(file))
    ]
    if trusted:
        issuers.append(CertifiedKeys(trusted, clock=clock))
    if settings.insecure_header_jwk:
        _log.warning(
            "kbs.INSECURE-HEADER-JWK",
            meaning="whoever reaches this port can make a token and pass for any machine",
        )
        issuers.append(InsecureHeaderKeys())
    return TokenVerifier(issuers)

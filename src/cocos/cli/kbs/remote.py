# SPDX-License-Identifier: Apache-2.0
"""A key broker whose attestation service is another server."""

import base64
import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec
import structlog

from cocos._clock import Clock
from cocos._types import JsonObject, UnverifiedToken, VerifiedClaims
from cocos.cli.kbs.tokens import token_verifier
from cocos.clients.attestation_service import Asked, AttestationServiceClient, Place
from cocos.clients.cvms import Tls
from cocos.clients.key_sets import FollowedKeys
from cocos.crypto import jwk
from cocos.crypto.jwk import VerificationKey
from cocos.errors import EvidenceError, Finding, ProtocolError, UnsupportedError
from cocos.host.files import read_certificates, read_file
from cocos.kbs.config import Settings
from cocos.kbs.service import Appraisal
from cocos.policy.appraisal import FINDINGS
from cocos.tokens.check import TokenVerifier, tee_public_key
from cocos.wire import json
from cocos.wire.kbs.protocol import InitData, Tee

KEYS_FRESH: Final = dt.timedelta(minutes=1)
"""How long a revoked key of another server may still be believed here."""

_log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def elsewhere(
    settings: Settings, *, clock: Clock
) -> AsyncIterator[tuple["RemoteAttestation", TokenVerifier]]:
    """Have another server appraise, while the block runs, and what believes its tokens.

    Raises:
        ConfigError: its tokens could not be believed, or a file cannot be used.
    """
    place = Place.parse(settings.attestation, _tls(settings))
    if not place.is_private:
        _log.warning(
            "kbs.insecure-attestation-service",
            meaning="evidence travels in clear; keys of tokens are not taken from there",
            address=place.target,
        )
    async with AttestationServiceClient(place) as client:
        keys = _RemoteKeys(client, place, clock=clock) if place.is_private else None
        tokens = token_verifier(settings, keys, clock=clock)
        remote = RemoteAttestation(client, tokens, settings.extra_teekey_paths, clock=clock)
        yield remote, tokens


@dataclass(frozen=True, slots=True)
class _Token:
    """What another server said of evidence."""

    token: str
    findings: tuple[Finding, ...]


class RemoteAttestation:
    """The attestation service of another server, as the key broker wants it."""

    def __init__(
        self,
        client: AttestationServiceClient,
        tokens: TokenVerifier,
        tee_key_paths: tuple[str, ...],
        *,
        clock: Clock,
    ) -> None:
        self._client = client
        self._tokens = tokens
        self._tee_key_paths = tee_key_paths
        self._clock = clock
        self.set_policy = client.set_policy
        self.register_reference_values = client.register_reference_values

    async def demand(self, tee: Tee, extra_params: Any) -> Asked | None:
        """Return what to ask of an attester; nobody is asked if it announced nothing."""
        if not isinstance(extra_params, dict) or tee.value not in extra_params:
            return None
        return await self._client.demand(tee, extra_params)

    async def appraise(
        self,
        tee: Tee,
        evidence: Any,
        additional: Mapping[Tee, Any],
        runtime_data: JsonObject,
        init_data: InitData | None,
        *,
        state: str | None,
    ) -> Appraisal:
        """Have evidence appraised; the token must hold here, and be about this attester."""
        token = await self._client.evaluate(
            tee, evidence, additional, runtime_data, init_data, state=state
        )
        try:
            claims = await self._tokens.verify(UnverifiedToken(token), self._clock())
            about = tee_public_key(claims, self._tee_key_paths)
        except EvidenceError as error:
            raise ProtocolError(
                f"the attestation service's token is not accepted here: {error.message}"
            ) from error
        if about != runtime_data["tee-pubkey"]:
            raise ProtocolError("the attestation service's token is about another machine")
        return _Token(token, _findings(claims))

    async def find_reference_value(self, name: str) -> tuple[Any, None]:
        """Return a reference value, of which nobody tells a tag."""
        return await self._client.get_reference_value(name), None

    async def set_reference_value(
        self, name: str, value: Any, *, expires: dt.datetime | None, new: bool, tag: str | None
    ) -> None:
        """Register one reference value; its protocol knows neither times nor conditions."""
        if expires is not None or new or tag is not None:
            await self.policy_ids()
        payload = base64.b64encode(json.encode({name: value})).decode("ascii")
        message = {"version": "0.1.0", "type": "sample", "payload": payload}
        await self._client.register_reference_values(message)

    async def policy_ids(self, *_: object) -> NoReturn:
        """Refuse: the protocol has no words for it."""
        raise UnsupportedError(
            "the attestation service is another server, whose protocol cannot do this",
            hint="ask its operator",
        )

    get_policy = delete_policy = policy_ids
    list_reference_values = delete_reference_value = policy_ids


class _RemoteKeys(FollowedKeys):
    """The keys of another server, on a channel that only it can answer on."""

    def __init__(self, client: AttestationServiceClient, place: Place, *, clock: Clock) -> None:
        super().__init__(place.target, clock=clock, fresh=KEYS_FRESH)
        self._client = client

    async def _load(self) -> tuple[VerificationKey, ...]:
        keys = jwk.parse_set(await self._client.key_set(), "the attestation service's keys")
        if not keys:
            raise ProtocolError("the attestation service shows no keys")
        return keys


def _findings(claims: VerifiedClaims) -> tuple[Finding, ...]:
    """Return what a token says of what is not affirming in it."""
    found: list[Finding] = []
    submods = claims.get("submods")
    for name, submod in submods.items() if isinstance(submods, dict) else ():
        listed = submod.get(FINDINGS, []) if isinstance(submod, dict) else []
        with contextlib.suppress(msgspec.ValidationError):
            given = msgspec.convert(listed, list[Finding])
            found += (replace(each, check=f"{name}.{each.check}") for each in given)
    return tuple(found)


def _tls(settings: Settings) -> Tls | None:
    def read(file: Path | None) -> bytes | None:
        return None if file is None else read_file(file, "a certificate of TLS", limit=2**20)

    ca = settings.attestation_ca
    roots = None if ca is None else read_certificates(ca, "the attestation service's CA")
    certificate, key = read(settings.attestation_certificate), read(settings.attestation_key)
    return None if roots is certificate is key is None else Tls(roots, certificate, key)

# SPDX-License-Identifier: Apache-2.0
"""Who appraises evidence for a key broker: itself, another server, or nobody."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import structlog
from cryptography import x509

from cocos._apart import apart
from cocos._clock import Clock
from cocos._types import JsonObject
from cocos.attestation_service.config import AttestationServiceConfig
from cocos.attestation_service.request import AppraisalRequest
from cocos.attestation_service.service import Appraisal, AttestationService
from cocos.attestation_service.signing_keys import SigningKeys
from cocos.cli.kbs.tokens import signing_keys, token_verifier
from cocos.cli.kbs.trust_roots import insecure_roots
from cocos.crypto import jwk
from cocos.crypto.signature import SigningPublicKey
from cocos.errors import ConfigError, FormatError, NotFoundError
from cocos.evidence import endorsement
from cocos.host.collateral import CollateralFolder, default_folder
from cocos.host.files import read_file
from cocos.kbs.admin.service import AppraisalRules
from cocos.kbs.config import BUILTIN, NO_ATTESTATION, Settings
from cocos.kbs.service import AttestationService as SomeAttestationService
from cocos.policy.engine import PolicyEngine
from cocos.stores.base import Store
from cocos.tokens.check import TokenVerifier
from cocos.verifiers import verifier_table
from cocos.verifiers.collateral import Collateral
from cocos.verifiers.tpm import Authorities, Kind, parse_cas
from cocos.wire.kbs.protocol import InitData, Tee

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Attestation:
    """What a key broker needs to know of attestation.

    Attributes:
        service: Appraises.
        rules: By which rules; for administrators.
        tokens: Believes tokens.
        signs: The keys of our own tokens and answers, if we sign any.
    """

    service: SomeAttestationService
    rules: AppraisalRules
    tokens: TokenVerifier
    signs: SigningKeys | None = None


def own_service(
    settings: Settings,
    store: Store,
    engine: PolicyEngine,
    *,
    clock: Clock,
    collateral: Collateral | None = None,
) -> tuple[AttestationService, SigningKeys]:
    """Return an attestation service in this process, and the keys that it signs with."""
    keys = signing_keys(settings, store, clock=clock)
    service = AttestationService(
        store,
        keys=keys,
        config=service_config(settings),
        engine=engine,
        clock=clock,
        verifiers=verifier_table(
            insecure_allow_sample=settings.insecure_allow_sample,
            clock=clock,
            tpm=_tpm_authorities(settings),
            collateral=collateral,
            insecure_roots=insecure_roots(settings.insecure_trust_root),
        ),
        makers=_makers(settings),
    )
    return service, keys


def builtin(
    settings: Settings,
    store: Store,
    engine: PolicyEngine,
    *,
    clock: Clock,
    collateral: Collateral | None = None,
) -> Attestation:
    """Appraise in this process."""
    service, keys = own_service(
        settings,
        store,
        engine,
        clock=clock,
        collateral=collateral or CollateralFolder(default_folder()),
    )
    tokens = token_verifier(settings, keys, clock=clock)
    return Attestation(_InProcess(service), service, tokens, keys)


@contextlib.asynccontextmanager
async def appraiser(settings: Settings, *, clock: Clock) -> AsyncIterator[Attestation | None]:
    """Have who appraises instead of this process, while the block runs; None if it does.

    Raises:
        ConfigError: nobody's tokens could be believed, or a file cannot be used.
    """
    if settings.attestation == BUILTIN:
        yield None
    elif settings.attestation == NO_ATTESTATION:
        _log.info("kbs.resource-only", meaning="guests bring tokens that others issued")
        nobody = _Nobody()
        yield Attestation(nobody, nobody, token_verifier(settings, None, clock=clock))
    else:
        # gRPC, which few key brokers need.
        from cocos.cli.kbs.remote import elsewhere  # noqa: PLC0415

        async with elsewhere(settings, clock=clock) as (remote, tokens):
            yield Attestation(remote, remote, tokens)


class _InProcess:
    """The attestation service of this process, as the key broker wants it."""

    def __init__(self, service: AttestationService) -> None:
        self._service = service
        self.demand = service.demand

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
        """Appraise evidence."""
        request = await apart(
            len(runtime_data.get("additional-evidence") or ""),
            AppraisalRequest.of_handshake,
            tee,
            evidence,
            additional,
            runtime_data,
            init_data,
            state=state,
        )
        return await self._service.appraise(request)


class _Nobody:
    """No attestation service: guests bring tokens of others."""

    async def demand(self, *_: object, **__: object) -> NoReturn:
        """Refuse."""
        raise NotFoundError(
            "this KBS has no attestation service",
            hint="get a token from one that it trusts, and show it as a bearer token",
        )

    appraise = demand
    set_policy = policy_ids = get_policy = delete_policy = demand
    register_reference_values = set_reference_value = find_reference_value = demand
    list_reference_values = delete_reference_value = demand


def _tpm_authorities(settings: Settings) -> Authorities:
    def read(files: tuple[Path, ...], kind: Kind) -> list[x509.Certificate]:
        texts = ((read_file(file, "the CA of TPMs", limit=2**20), str(file)) for file in files)
        return [ca for pem, name in texts for ca in parse_cas(pem, name, kind)]

    allowed: list[str] = []
    for file in settings.tpm_ek_allow:
        data = read_file(file, "the list of endorsement keys", limit=2**24)
        try:
            allowed += endorsement.parse_list(data, str(file))
        except FormatError as error:
            raise ConfigError(error.message, hint=error.hint) from error
    return Authorities(
        read(settings.tpm_ek_ca, Kind.MANAGER),
        read(settings.tpm_vendor_ca, Kind.VENDOR),
        allowed,
    )


def _makers(settings: Settings) -> list[SigningPublicKey]:
    try:
        return [
            jwk.from_pem(read_file(file, "the key of CoRIMs", limit=2**20), str(file)).key
            for file in settings.corim_keys
        ]
    except FormatError as error:
        raise ConfigError(error.message, hint=error.hint) from error


def service_config(settings: Settings) -> AttestationServiceConfig:
    """Return what tokens say, from the settings."""
    given = {
        "issuer_name": settings.token_issuer,
        "developer_name": settings.token_developer,
        "build_name": settings.token_build,
        "profile_name": settings.token_profile,
        "duration_minutes": settings.token_minutes,
        "challenge_minutes": settings.timeout,
        "verbose_token": settings.verbose_token,
        "insecure_allow_sample": settings.insecure_allow_sample,
        "sample_extractor": settings.sample_extractor,
        "insecure_allow_unsigned_corim": settings.insecure_allow_unsigned_corim,
    }
    return AttestationServiceConfig.model_validate(
        {name: value for name, value in given.items() if value is not None}
    )

# SPDX-License-Identifier: Apache-2.0
"""Puts a key broker together from its settings."""

import datetime as dt
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from cryptography import x509

from cocos._clock import Clock
from cocos._types import JsonObject
from cocos.attestation_service.config import AttestationServiceConfig
from cocos.attestation_service.service import (
    Appraisal,
    AppraisalRequest,
    AttestationService,
)
from cocos.cli._kbs_tokens import signing_keys, token_verifier
from cocos.cli._kbs_tracing import APPRAISAL, POLICY, STORE, traced
from cocos.clients.key_sets import KeySet, parse_pem
from cocos.crypto import jwk
from cocos.errors import ConfigError
from cocos.host.files import read_file
from cocos.kbs.admin import AccessList, AdminGate, DenyAll, InsecureAllowAll, SignedTokens
from cocos.kbs.administration import Administration
from cocos.kbs.admission import OpenSessions, RateLimit
from cocos.kbs.app import make_app
from cocos.kbs.audit import Auditor
from cocos.kbs.config import ProviderSettings, Settings
from cocos.kbs.denials import Denials
from cocos.kbs.identity_providers import BearerTokens, IdentityProvider
from cocos.kbs.metrics import KbsMetrics
from cocos.kbs.resource_policy import ResourcePolicy
from cocos.kbs.service import KbsService
from cocos.kbs.well_known import well_known_routes
from cocos.policy import defaults
from cocos.policy.engine import PolicyEngine
from cocos.stores.health import Health
from cocos.stores.opening import Storage
from cocos.transport.client_address import ClientAddresses
from cocos.transport.web import WebApp
from cocos.verifiers import verifier_table
from cocos.verifiers.tpm import parse_ek_cas
from cocos.wire.kbs import InitData, Tee

if TYPE_CHECKING:
    from cocos.transport.tracing import Tracing

_log = structlog.get_logger(__name__)


async def compose(
    settings: Settings,
    storage: Storage,
    gate: AdminGate,
    engine: PolicyEngine,
    *,
    clock: Clock,
    tracing: "Tracing | None" = None,
) -> WebApp:
    """Put a key broker together."""
    store = traced(tracing, storage.store, STORE, first="db.collection.name")
    engine = traced(tracing, engine, POLICY)
    clients = ClientAddresses(settings.trusted_proxies)
    auditor = Auditor(storage.audit, clients)
    metrics = KbsMetrics()
    keys = signing_keys(settings, store, clock=clock)
    config = _attestation_config(settings)
    attestation = AttestationService(
        store,
        keys=keys,
        config=config,
        engine=engine,
        clock=clock,
        verifiers=verifier_table(
            insecure_allow_sample=settings.insecure_allow_sample,
            clock=clock,
            tpm_ek_cas=_ek_cas(settings.tpm_ek_ca),
        ),
    )
    policy = ResourcePolicy(store, engine, default=_resource_policy(settings), metrics=metrics)
    denials = Denials(store, clock=clock)
    service = KbsService(
        store,
        traced(tracing, _InProcess(attestation), APPRAISAL, first="cocos.tee"),
        tokens=token_verifier(settings, keys, clock=clock),
        tee_key_paths=settings.extra_teekey_paths,
        policy=policy,
        open_sessions=OpenSessions(settings.max_open_sessions),
        auditor=auditor,
        metrics=metrics,
        clock=clock,
        session_lifetime=dt.timedelta(minutes=settings.timeout),
        oldest=settings.oldest_protocol,
    )
    administration = Administration(
        store, attestation, policy=policy, denials=denials, metrics=metrics
    )
    return make_app(
        service,
        administration,
        gate,
        denials=denials,
        auditor=auditor,
        health=Health(store, clock=clock),
        metrics=metrics,
        well_known=well_known_routes(keys, issuer=config.issuer_name),
        handshakes=RateLimit(settings.auth_rate),
        clients=clients,
        max_body_bytes=settings.payload_request_size * 2**20,
    )


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
        state: JsonObject | None,
    ) -> Appraisal:
        """Appraise evidence."""
        return await self._service.appraise(
            AppraisalRequest(
                tee=tee,
                evidence=evidence,
                runtime_data=runtime_data,
                additional=additional,
                init_data=init_data,
                state=state,
            )
        )


def _ek_cas(files: Iterable[Path]) -> list[x509.Certificate]:
    found: list[x509.Certificate] = []
    for file in files:
        pem = read_file(file, "the certificate of a TPM manufacturer", limit=2**20)
        found += parse_ek_cas(pem, str(file))
    return found


def admin_gate(settings: Settings, clock: Clock) -> AdminGate:
    """Return who decides on administrators."""
    if settings.insecure_api:
        return InsecureAllowAll()
    if settings.deny_admin:
        return DenyAll()
    access = None
    if settings.access_rules is not None:
        access = AccessList((rule.role, rule.allowed_endpoints) for rule in settings.access_rules)
    if settings.identity_providers:
        return BearerTokens(
            [_provider(provider, clock) for provider in settings.identity_providers],
            access or AccessList([]),
            clock=clock,
            role_claim=settings.role_claim,
        )
    keys = {
        name: read_file(file, "the administrator's public key")
        for name, file in settings.auth_public_keys.items()
    }
    return SignedTokens(keys, clock=clock, access=access)


def _provider(settings: ProviderSettings, clock: Clock) -> IdentityProvider:
    places = ((settings.public_key_uri, parse_pem), (settings.jwk_set_uri, jwk.parse_set))
    keys = tuple(KeySet(place, parse, clock=clock) for place, parse in places if place)
    return IdentityProvider(keys, settings.issuer, settings.audience)


def _resource_policy(settings: Settings) -> str:
    """Return the policy that holds until an administrator sets one."""
    file = settings.resource_policy_file
    if file is None or not file.exists():
        if file is not None:
            # Trustee's files name one that is only written later.
            _log.warning("kbs.no-resource-policy-file", file=str(file), instead="the default")
        return defaults.text(defaults.RESOURCE)
    data = read_file(file, "the resource policy", limit=2**20)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 text") from error


def _attestation_config(settings: Settings) -> AttestationServiceConfig:
    given = {
        "issuer_name": settings.token_issuer,
        "developer_name": settings.token_developer,
        "build_name": settings.token_build,
        "profile_name": settings.token_profile,
        "duration_minutes": settings.token_minutes,
        "verbose_token": settings.verbose_token,
        "insecure_allow_sample": settings.insecure_allow_sample,
    }
    return AttestationServiceConfig.model_validate(
        {name: value for name, value in given.items() if value is not None}
    )

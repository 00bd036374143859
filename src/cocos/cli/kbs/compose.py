# SPDX-License-Identifier: Apache-2.0
"""Puts a key broker together from its settings."""

import datetime as dt
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog
from starlette.routing import Route

from cocos._clock import Clock
from cocos.cli.kbs.attestation import Attestation, builtin, service_config
from cocos.cli.kbs.tracing import APPRAISAL, POLICY, STORE, traced
from cocos.clients.key_sets import KeySet, parse_pem
from cocos.crypto import jwk
from cocos.errors import ConfigError
from cocos.host.files import read_file
from cocos.kbs.admin.gate import AccessList, AdminGate, DenyAll, InsecureAllowAll, SignedTokens
from cocos.kbs.admin.identity_providers import BearerTokens, IdentityProvider
from cocos.kbs.admin.service import Administration
from cocos.kbs.admission import OpenSessions, RateLimit
from cocos.kbs.app import make_app
from cocos.kbs.audit import Auditor
from cocos.kbs.config import ProviderSettings, Settings
from cocos.kbs.denials import Denials
from cocos.kbs.metrics import KbsMetrics
from cocos.kbs.proofs import Proofs
from cocos.kbs.resource_policy import RESOURCE, ResourcePolicy
from cocos.kbs.service import KbsService
from cocos.kbs.well_known import well_known_routes
from cocos.policy import defaults
from cocos.policy.engine import PolicyEngine
from cocos.stores.base import Store
from cocos.stores.health import Health
from cocos.stores.opening import Storage
from cocos.stores.policies import StoredPolicies
from cocos.transport.client_address import ClientAddresses
from cocos.transport.web import WebApp

if TYPE_CHECKING:
    from cocos.transport.tracing import Tracing

_LOOKED_AT = 1000  # resources, so that a start does not take long
_SHOWN = 5

_log = structlog.get_logger(__name__)


async def compose(
    settings: Settings,
    storage: Storage,
    gate: AdminGate,
    engine: PolicyEngine,
    *,
    clock: Clock,
    attestation: Attestation | None = None,
    tracing: "Tracing | None" = None,
    policies: Callable[[StoredPolicies], None] = lambda _: None,
) -> WebApp:
    """Put a key broker together.

    Args:
        settings: What the operator wants.
        storage: Where everything is kept.
        gate: Admits administrators.
        engine: Evaluates policies.
        clock: Decides what has expired.
        attestation: Who appraises; this process without.
        tracing: Where traces go.
        policies: Told those that decide who gets which resource.
    """
    store, engine = _traced(tracing, storage.store, engine)
    clients = ClientAddresses(settings.trusted_proxies)
    auditor = Auditor(storage.audit, clients)
    metrics = KbsMetrics()
    attestation = attestation or builtin(settings, store, engine, clock=clock)
    policy = ResourcePolicy(store, engine, default=_resource_policy(settings), metrics=metrics)
    policies(policy)
    denials = Denials(store, clock=clock)
    service = KbsService(
        store,
        traced(tracing, attestation.service, APPRAISAL, first="cocos.tee"),
        tokens=attestation.tokens,
        tee_key_paths=settings.extra_teekey_paths,
        policy=policy,
        open_sessions=OpenSessions(settings.max_open_sessions),
        auditor=auditor,
        metrics=metrics,
        clock=clock,
        session_lifetime=dt.timedelta(minutes=settings.timeout),
        oldest=settings.oldest_protocol,
    )
    admin = await _administration(store, attestation, policy, denials, metrics)
    return make_app(
        service,
        admin,
        gate,
        denials=denials,
        auditor=auditor,
        health=Health(store, clock=clock),
        metrics=metrics,
        proofs=Proofs(None if attestation.signs is None else attestation.signs.signer),
        well_known=_well_known(settings, attestation),
        allowance=RateLimit(settings.auth_rate),
        clients=clients,
        max_body_bytes=settings.payload_request_size * 2**20,
        denial_status=settings.denial_status,
    )


def _traced(
    tracing: "Tracing | None", store: Store, engine: PolicyEngine
) -> tuple[Store, PolicyEngine]:
    seen = traced(tracing, store, STORE, first="db.collection.name")
    return seen, traced(tracing, engine, POLICY)


async def _administration(
    store: Store,
    attestation: Attestation,
    policy: ResourcePolicy,
    denials: Denials,
    metrics: KbsMetrics,
) -> Administration:
    """Return what administrators do, having warned of what they should."""
    administration = Administration(
        store, attestation.rules, policy=policy, denials=denials, metrics=metrics
    )
    names = await administration.unbound_keys(_LOOKED_AT)
    if names:
        _log.warning(
            "kbs.keys-under-the-default-policy",
            keys=names[:_SHOWN],
            at_least=len(names),
            meaning="whoever can start a computation on a machine that is trusted gets them",
            hint=f"kbs-client config set-resource-policy --id {RESOURCE}/{names[0]} --for MANIFEST",
        )
    return administration


def _well_known(settings: Settings, attestation: Attestation) -> list[Route]:
    if attestation.signs is None:
        return []
    issuer = service_config(settings).issuer_name
    return well_known_routes(attestation.signs, issuer=issuer)


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

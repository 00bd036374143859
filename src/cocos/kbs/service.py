# SPDX-License-Identifier: Apache-2.0
"""What the key broker does for guests: handshakes and resources.

Deny by default: a resource leaves only encrypted to the key in a verified token, after the
resource policy has said yes to the token's claims.
"""

import datetime as dt
import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

import msgspec
import structlog

from cocos._apart import apart
from cocos._clock import Clock
from cocos._types import JsonObject, UnverifiedToken
from cocos.crypto import early_jwe, jwe
from cocos.errors import (
    AuthenticationError,
    CallerError,
    EvidenceError,
    Finding,
    FormatError,
    NotFoundError,
    TeeKeyError,
)
from cocos.kbs import session as rcar
from cocos.kbs.admission import OpenSessions
from cocos.kbs.audit import Auditor, Trail
from cocos.kbs.metrics import KbsMetrics
from cocos.kbs.proofs import Released
from cocos.kbs.resource_policy import RESOURCE, ResourcePolicy
from cocos.policy.appraisal import INSECURE
from cocos.stores.base import Namespace, Store
from cocos.tokens.check import TokenVerifier, tee_public_key
from cocos.wire import json
from cocos.wire.kbs import protocol as kbs
from cocos.wire.kbs.generations import (
    NEWEST,
    Generation,
    bound_data,
    decode_attestation,
)

_SESSION_ID: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_NO_SESSION: Final = "there is no such session, or it has expired"
_HANDSHAKE: Final = "start a new handshake with POST /kbs/v0/auth"

AdditionalEvidence: TypeAlias = Mapping[kbs.Tee, Any]

_log = structlog.get_logger(__name__)


class Appraisal(Protocol):
    """Evidence that held."""

    @property
    def token(self) -> str:
        """Signed attestation result."""
        ...

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Why something in it is not affirming."""
        ...


class Demand(Protocol):
    """What evidence of some kinds needs beside a nonce."""

    @property
    def nonce(self) -> str:
        """That the evidence must carry: base64 of 32 bytes that nobody has seen before."""
        ...

    @property
    def params(self) -> JsonObject:
        """For the attester, under the TEE's name in the challenge's ``extra-params``."""
        ...

    @property
    def state(self) -> str:
        """To be kept with the session and given back with the evidence; opaque."""
        ...


class AttestationService(Protocol):
    """Who appraises evidence: in this process, or a server of its own."""

    async def demand(self, tee: kbs.Tee, extra_params: Any) -> Demand | None:
        """Return what to ask of an attester, if it is more than any nonce.

        Args:
            tee: Primary attester.
            extra_params: Of its request.

        Raises:
            EvidenceError: what it announced can never become evidence that holds.
        """
        ...

    async def appraise(
        self,
        tee: kbs.Tee,
        evidence: Any,
        additional: AdditionalEvidence,
        runtime_data: JsonObject,
        init_data: kbs.InitData | None,
        *,
        state: str | None,
    ) -> Appraisal:
        """Appraise evidence.

        Args:
            tee: Primary attester.
            evidence: Its evidence.
            additional: Evidence of devices.
            runtime_data: What the primary attester's evidence must be bound to.
            init_data: What the host passed in, in clear.
            state: Of the demand in this session, as it was.

        Raises:
            EvidenceError: evidence does not hold; says why in its findings.
        """
        ...


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a guest shows: the id of its session, else a token of its own."""

    session_id: str | None = None
    bearer: str | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """A session that has just been opened."""

    session_id: str
    expires: dt.datetime
    challenge: kbs.Challenge


class KbsService:
    """The use cases of guests."""

    def __init__(
        self,
        store: Store,
        attestation: AttestationService,
        *,
        tokens: TokenVerifier,
        policy: ResourcePolicy,
        open_sessions: OpenSessions,
        auditor: Auditor,
        metrics: KbsMetrics,
        clock: Clock,
        session_lifetime: dt.timedelta,
        oldest: Generation = Generation.V0_1_1,
        tee_key_paths: Sequence[str] = (),
    ) -> None:
        self._store = store
        self._attestation = attestation
        self._tokens = tokens
        self._policy = policy
        self._metrics = metrics
        self._clock = clock
        self._lifetime = session_lifetime
        self._oldest = oldest
        self._open = open_sessions
        self._tee_key_paths = tuple(tee_key_paths)
        self._auditor = auditor

    async def auth(self, request: kbs.Request, trail: Trail) -> Opened:
        """Open a session and challenge the attester.

        Raises:
            FormatError: a protocol version that we do not speak.
            EvidenceError: what it announces can never become evidence that holds.
        """
        trail.tee = request.tee.value
        session, challenge = rcar.start(
            request,
            nonce=secrets.token_bytes(rcar.NONCE_BYTES),
            now=self._clock(),
            lifetime=self._lifetime,
            oldest=self._oldest,
        )
        asked = await self._attestation.demand(request.tee, request.extra_params)
        if asked is not None:
            session, challenge = rcar.demand(session, asked.nonce, asked.params, asked.state)
        session_id = secrets.token_hex(16)
        await self._store.put(
            Namespace.SESSION, session_id, rcar.dump(session), expires=session.expires
        )
        for oldest in self._open.add(session_id, session.expires, self._clock()):
            await self._store.delete(Namespace.SESSION, oldest)
        return Opened(session_id, session.expires, challenge)

    async def attest(self, session_id: str, body: bytes, trail: Trail) -> rcar.Attested:
        """Appraise evidence once, in the session whose nonce it carries.

        Args:
            session_id: What the guest's cookie says.
            body: An attestation in the form of the session's generation.
            trail: Of this request.

        Raises:
            AuthenticationError: no such session, expired, its nonce used or another one.
            FormatError: not an attestation, or a malformed key.
            EvidenceError: the evidence does not hold.
        """
        stored = await self._stored(session_id)
        if stored is None:
            raise AuthenticationError(_NO_SESSION, hint=_HANDSHAKE)
        session = rcar.waiting(rcar.load(stored), self._clock())
        trail.tee, trail.evidence = session.tee.value, await apart(len(body), _digest, body)
        attestation, additional = await apart(len(body), _decode, body, session)
        nonce = attestation.runtime_data.nonce
        spent = rcar.spend(session, nonce, self._clock(), trail.evidence)
        # Two attestations at once both got here; the store lets one of them pass.
        if not await self._store.replace(Namespace.SESSION, session_id, stored, rcar.dump(spent)):
            raise AuthenticationError("the nonce of this session has been used already")
        self._open.remove(session_id)
        try:
            appraisal = await self._attestation.appraise(
                spent.tee,
                attestation.tee_evidence.primary_evidence,
                additional,
                bound_data(attestation, spent.generation),
                attestation.init_data,
                state=session.kept,
            )
        except EvidenceError:
            self._metrics.attestation_failures.labels(spent.tee.value).inc()
            raise
        done = rcar.attested(spent, appraisal.token, appraisal.findings)
        trail.saw_token(done.token)
        await self._auditor.attested(trail, affirming=not done.findings)
        if not await self._store.replace(
            Namespace.SESSION, session_id, rcar.dump(spent), rcar.dump(done)
        ):
            raise AuthenticationError("the session has expired")
        self._metrics.attestation_successes.labels(spent.tee.value).inc()
        _log.info("kbs.attested", tee=spent.tee.value, protocol=spent.generation.value)
        key = attestation.runtime_data.tee_pubkey
        if isinstance(key, kbs.RsaKey) and key.alg == early_jwe.ALGORITHM:
            _log.warning("kbs.weak-key", tee=spent.tee.value, alg=key.alg)
        return done

    async def read_resource(
        self,
        credentials: Credentials,
        path: kbs.ResourcePath,
        query: Mapping[str, str],
        trail: Trail,
    ) -> Released:
        """Release a resource, encrypted to the key in the caller's token.

        It is read before its policy is: who binds a key to a policy, and then stores it,
        must not find that a request was decided by the policies of a moment before. What
        exists is guarded, too: until the policy allows it nothing depends on what was read.

        Raises:
            AuthenticationError: neither an attested session nor a token.
            EvidenceError: the token does not hold.
            AccessDeniedError: the policy says no.
            NotFoundError: there is no such resource.
            TeeKeyError: it cannot be encrypted to the key in the token.
        """
        trail.resource = str(path)
        shown = await self._token(credentials)
        trail.tee, trail.evidence = shown.tee, shown.evidence
        trail.saw_token(shown.token)
        claims = await self._tokens.verify(UnverifiedToken(shown.token), self._clock())
        trail.saw_claims(claims)
        secret = await self._store.get(Namespace.RESOURCE, str(path))
        segments = (path.repository, path.type, path.tag)
        await self._policy.check(
            RESOURCE, segments, query, claims, shown.findings, note=trail.saw_policy
        )
        if secret is None:
            raise NotFoundError(
                f"there is no resource {path}",
                hint=f"its owner stores it with kbs-client config set-resource --resource {path}",
            )
        key = tee_public_key(claims, self._tee_key_paths)
        encrypt = jwe.encrypt if shown.generation.header_sealed else early_jwe.encrypt
        try:
            sealed = encrypt(secret, key)
        except FormatError as error:
            raise TeeKeyError(error.message, hint=error.hint) from error
        await self._auditor.released(trail)
        self._metrics.reads.inc()
        _log.info("kbs.released", resource=str(path))
        if INSECURE in claims:
            _log.warning("kbs.released-INSECURELY", resource=str(path), because=claims[INSECURE])
        return Released(msgspec.convert(sealed, kbs.Response), key)

    async def _stored(self, session_id: str) -> bytes | None:
        # A cookie can hold what a database chokes on, such as NUL.
        if not _SESSION_ID.fullmatch(session_id):
            return None
        return await self._store.get(Namespace.SESSION, session_id)

    async def _token(self, credentials: Credentials) -> "_Shown":
        """Return the session's token and what was found, else the caller's own token.

        The latter is the passport model: somebody else may have issued it, and nothing
        tells of an older protocol.
        """
        refusal = AuthenticationError("Attestation Token not found", hint=_HANDSHAKE)
        if credentials.session_id is not None:
            stored = await self._stored(credentials.session_id)
            try:
                if stored is not None:
                    session = rcar.use(rcar.load(stored), self._clock())
                    tee = session.tee.value if session.tee else ""
                    return _Shown(
                        session.token, session.findings, session.generation, tee, session.evidence
                    )
                refusal = AuthenticationError(_NO_SESSION, hint=_HANDSHAKE)
            except AuthenticationError as error:
                refusal = error
        if credentials.bearer is None:
            raise refusal
        return _Shown(credentials.bearer)


@dataclass(frozen=True, slots=True)
class _Shown:
    """A token to be verified, and what the session that it comes from knows."""

    token: str
    findings: tuple[Finding, ...] = ()
    generation: Generation = NEWEST
    tee: str = ""
    evidence: str = ""


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _decode(body: bytes, session: rcar.Authed) -> tuple[kbs.Attestation, AdditionalEvidence]:
    attestation = decode_attestation(body, session.generation, session.nonce)
    return attestation, _check(attestation, session)


def _check(attestation: kbs.Attestation, session: rcar.Authed) -> AdditionalEvidence:
    """Check what can be checked before a nonce is used; return the devices' evidence.

    Raises:
        FormatError: a malformed key, or evidence that does not parse.
        AuthenticationError: another nonce than the session's.
    """
    runtime, evidence = attestation.runtime_data, attestation.tee_evidence
    additional: AdditionalEvidence = {}
    problems: list[CallerError] = []
    try:
        _check_key(runtime.tee_pubkey, session)
    except CallerError as error:
        problems.append(error)
    try:
        additional = _additional(evidence.additional_evidence)
    except CallerError as error:
        problems.append(error)
    try:
        rcar.check_nonce(session, runtime.nonce)
    except CallerError as error:
        problems.append(error)
    if problems:
        problems[0].findings = tuple(Finding(each.code, each.message) for each in problems)
        raise problems[0]
    return additional


def _check_key(key: kbs.TeePublicKey, session: rcar.Authed) -> None:
    """Check a key; one of another algorithm than ours gets its token all the same."""
    members = kbs.key_members(key)
    if not session.generation.header_sealed:
        early_jwe.check_public_jwk(members)
    elif jwe.serves(members) or not isinstance(key, kbs.EcKey | kbs.RsaKey):
        jwe.check_public_jwk(members)


def _additional(text: str) -> AdditionalEvidence:
    """Parse evidence of devices: JSON text, TEE → evidence; empty without devices."""
    if not text:
        return {}
    devices: AdditionalEvidence = json.decode_strict(
        text.encode(), dict[kbs.Tee, Any], "the evidence of additional devices"
    )
    return devices

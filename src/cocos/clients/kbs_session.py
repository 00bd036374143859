# SPDX-License-Identifier: Apache-2.0
"""How a guest comes to a session with a KBS: by a handshake, or from its attestation agent.

The handshake is RCAR: Request → Challenge → Attestation → Response. What the attester
the KBS to know first, and what the KBS wants it to prove, travel in the ``extra-params``
of Request and Challenge. A session's lifetime is measured on our own
monotonic clock, so that a guest with a wrong date still works.
"""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any, Protocol, runtime_checkable

import msgspec
import structlog

from cocos._types import JsonObject, UnverifiedToken
from cocos.clients._http import Answer, HttpServer
from cocos.clients._kbs_auth import Opening
from cocos.clients._kbs_http import BASE, OK, decode, refusal, session_ended
from cocos.crypto import base64url, detached
from cocos.crypto.tee_key import EC_P256, RSA_EARLY, TeeKeyPair
from cocos.errors import (
    AuthenticationError,
    CocosError,
    FormatError,
    IntegrityError,
    ProtocolError,
    UnsupportedError,
)
from cocos.wire import json
from cocos.wire.agent_token import AgentToken
from cocos.wire.kbs import protocol as kbs
from cocos.wire.kbs.generations import NEWEST, Generation, bound_data, encode_attestation

HASH = "sha384"
_MARGIN = 0.1  # of a session's lifetime: not used any more

_log = structlog.get_logger(__name__)


class EvidenceSource(Protocol):
    """Makes evidence of this machine: an attester."""

    async def tee(self) -> kbs.Tee:
        """Return the primary TEE."""
        ...

    async def auth_params(self) -> JsonObject:
        """Return members of the Request's ``extra-params``; may be empty."""
        ...

    async def evidence(self, report_data: bytes, challenge: JsonObject | None = None) -> Any:
        """Return evidence of the primary TEE, as JSON.

        Args:
            report_data: What it must carry.
            challenge: The Challenge's ``extra-params``.
        """
        ...

    async def additional_evidence(self, report_data: bytes) -> str:
        """Return JSON text, TEE → evidence of each device; empty without devices."""
        ...


@runtime_checkable
class TokenSource(Protocol):
    """Makes handshakes for others: an attestation agent."""

    async def kbs_token(self, url: str, *, refused: str = "") -> AgentToken:
        """Return a token of the KBS at ``url``.

        Args:
            url: Address of the KBS.
            refused: An earlier token, which the KBS does not accept any more.
        """
        ...


@dataclass(frozen=True, slots=True)
class Session:
    """An attested session.

    Attributes:
        token: EAR token; its signature is for relying parties to check.
        key: The key pair that the token speaks of; resources are encrypted to it.
        cookies: What the KBS knows the session by.
        ends_at: Reading of the event loop's clock, in seconds, from which on the session
            is not used any more.
        protocol: What the session speaks.
    """

    token: UnverifiedToken = field(repr=False)
    key: TeeKeyPair = field(repr=False)
    cookies: dict[str, str] = field(repr=False)
    ends_at: float
    protocol: Generation = NEWEST

    def decrypt(self, response: kbs.Response) -> bytes:
        """Decrypt a resource of this session.

        Raises:
            FormatError: it has not the form that the protocol gives it.
            IntegrityError: it does not decrypt with our key.
        """
        members = msgspec.to_builtins(response)
        if self.protocol.header_sealed:
            return self.key.decrypt(members)
        return self.key.decrypt_early(members)


class SessionSource(Protocol):
    """Where sessions come from."""

    async def session(self, *, ended: Session | None = None) -> Session:
        """Return the present session, or open a new one.

        Args:
            ended: A session that the KBS does not know any more.

        Raises:
            AuthenticationError: the KBS does not accept our evidence.
            UnreachableError: it does not answer.
            ProtocolError: it answers something else than its protocol.
        """
        ...


class _SessionLostError(AuthenticationError):
    """The KBS does not know a session that it has just opened."""


class OwnSessions:
    """Attests to one KBS; a session is used until it ends, and by all who need one.

    Args:
        server: The KBS.
        evidence: Who makes evidence.
        init_data: What the host passed in, for the KBS to appraise.
        key: Key pair for every session; without it every session gets a new one.
        key_algorithm: Kind of new key pairs.
        generation: Changes when evidence may say something new; older sessions are then
            not used any more.
        oldest: The oldest protocol to go down to, whatever it loses; None for what loses
            nothing.
        token_keys: Thumbprints of the keys that the KBS's tokens must be signed by; any without.
    """

    def __init__(
        self,
        server: HttpServer,
        evidence: EvidenceSource,
        *,
        init_data: kbs.InitData | None = None,
        key: TeeKeyPair | None = None,
        key_algorithm: str = EC_P256,
        generation: Callable[[], int] = lambda: 0,
        oldest: Generation | None = None,
        token_keys: Collection[str] = (),
    ) -> None:
        self._server = server
        self._token_keys = frozenset(token_keys)
        self._opening = Opening(server, oldest=oldest)
        self._evidence = evidence
        self._init_data = init_data
        self._key = key
        self._key_algorithm = key_algorithm
        self._generation = generation
        self._session: tuple[int, Session] | None = None
        self._failure: CocosError | None = None
        self._lock = asyncio.Lock()

    async def session(self, *, ended: Session | None = None) -> Session:
        """Return the present session, or make a handshake for a new one.

        Callers that wait for the same handshake share its outcome, good or bad.
        """
        waited = self._lock.locked()
        async with self._lock:
            now, generation = asyncio.get_running_loop().time(), self._generation()
            if self._session is not None:
                made, session = self._session
                if made == generation and session is not ended and now < session.ends_at:
                    return session
            if waited and self._failure is not None:
                raise self._failure
            self._session = self._failure = None
            try:
                session = await self._new()
            except CocosError as error:
                self._failure = error
                raise
            self._session = generation, session
            return session

    async def _new(self) -> Session:
        try:
            return await self._handshake()
        except _SessionLostError:
            # The KBS was started again between our two requests. Nothing of the lost handshake
            # is used in the next: neither nonce nor key.
            _log.info("kbs.session-lost", url=self._server.url)
            return await self._handshake()

    async def _handshake(self) -> Session:
        clock = asyncio.get_running_loop().time
        began = clock()
        tee = await self._evidence.tee()
        params = await self._evidence.auth_params()
        protocol, answer = await self._opening.auth(
            tee, {"supported-hash-algorithms": [HASH], **params}
        )
        challenge: kbs.Challenge = decode(self._server, answer, kbs.Challenge, "its challenge")
        _check_hash(challenge.extra_params)
        cookies = _cookies(answer)
        if kbs.SESSION_COOKIE not in cookies:
            raise ProtocolError(f"the KBS at {self._server.url} set no cookie {kbs.SESSION_COOKIE}")
        key = await self._key_for(protocol)
        attestation = await self._attestation(protocol, challenge, key)
        answer = await self._server.request(
            "POST",
            f"{BASE}/attest",
            content=encode_attestation(attestation, protocol),
            headers={"Content-Type": "application/json", **cookie_header(cookies)},
        )
        if answer.status != OK:
            error = refusal(self._server, answer, "our evidence")
            if session_ended(answer):
                raise _SessionLostError(error.message, hint=error.hint)
            raise error
        result: kbs.AttestationResult = decode(
            self._server, answer, kbs.AttestationResult, "its attestation result"
        )
        self._check_issuer(result.token)
        _log.info(
            "kbs.attested",
            url=self._server.url,
            tee=tee.value,
            protocol=protocol.value,
            seconds=round(clock() - began, 3),
        )
        return _session(result.token, key, {**cookies, **_cookies(answer)}, protocol)

    def _check_issuer(self, token: str) -> None:
        """Check that the KBS is the one that was named by its token key."""
        if not self._token_keys:
            return
        try:
            detached.verify_token(token, self._token_keys)
        except (FormatError, AuthenticationError) as error:
            raise IntegrityError(
                f"the KBS at {self._server.url} is not the one that was named by its token key: "
                f"of its attestation token, {error.message}",
                hint="somebody answers in its place, or it has a new key: kbs token-key list",
            ) from error

    async def _key_for(self, protocol: Generation) -> TeeKeyPair:
        if self._key is None:
            kind = self._key_algorithm if protocol.header_sealed else RSA_EARLY
            return await asyncio.to_thread(TeeKeyPair.generate, kind)
        if not protocol.header_sealed and self._key.public_jwk()["alg"] != RSA_EARLY:
            raise UnsupportedError(
                f"the KBS at {self._server.url} speaks protocol {protocol}, which encrypts to "
                f"{RSA_EARLY} keys only, and the TEE key given is another one"
            )
        return self._key

    async def _attestation(
        self, protocol: Generation, challenge: kbs.Challenge, key: TeeKeyPair
    ) -> kbs.Attestation:
        nonce, params = challenge.nonce, challenge.extra_params
        public: kbs.TeePublicKey = msgspec.convert(key.public_jwk(), kbs.TeePublicKey)
        devices = kbs.report_data(kbs.runtime_data(nonce, public))
        additional = await self._evidence.additional_evidence(devices)
        self._opening.check_loss(
            protocol, {"devices": bool(additional), "init data": self._init_data is not None}
        )
        made = kbs.Attestation(
            runtime_data=kbs.RuntimeData(nonce=nonce, tee_pubkey=public),
            tee_evidence=kbs.TeeEvidence(None, additional_evidence=additional),
            init_data=self._init_data,
        )
        evidence = await self._evidence.evidence(
            kbs.report_data(bound_data(made, protocol)),
            params if isinstance(params, dict) else None,
        )
        return msgspec.structs.replace(
            made, tee_evidence=kbs.TeeEvidence(evidence, additional_evidence=additional)
        )


class AgentSessions:
    """Gets the sessions of an attestation agent, which alone can answer challenges.

    It is asked every time: only the agent knows whether something was measured since. When
    it answers the same as before, what was read of its answer still serves.

    Args:
        url: Address of the KBS, which says also what it is known by.
        tokens: The agent.
    """

    def __init__(self, url: str, tokens: TokenSource) -> None:
        self._url = url
        self._tokens = tokens
        self._last: tuple[AgentToken, Session] | None = None

    async def session(self, *, ended: Session | None = None) -> Session:
        """Return the agent's present session, unless it is the one that has ended."""
        found = await self._tokens.kbs_token(self._url, refused=ended.token if ended else "")
        if self._last is not None and self._last[0] == found:
            return self._last[1]
        early = not found.protocol.header_sealed
        key = TeeKeyPair.from_pem(found.tee_keypair.encode(), early=early)
        cookies = {kbs.SESSION_COOKIE: found.session} if found.session else {}
        session = _session(found.token, key, cookies, found.protocol)
        self._last = found, session
        return session


def proof_header(session: Session) -> dict[str, str]:
    """Return the header that shows a session: its cookie, else its token."""
    return cookie_header(session.cookies) or {"Authorization": f"Bearer {session.token}"}


def cookie_header(cookies: dict[str, str]) -> dict[str, str]:
    """Return the header that shows cookies; none without."""
    if not cookies:
        return {}
    return {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}


def _session(token: str, key: TeeKeyPair, cookies: dict[str, str], protocol: Generation) -> Session:
    return Session(
        token=UnverifiedToken(token),
        key=key,
        cookies=cookies,
        ends_at=asyncio.get_running_loop().time() + _lifetime(token),
        protocol=protocol,
    )


def _check_hash(extra_params: Any) -> None:
    """Refuse a hash that we did not offer."""
    chosen = (
        extra_params.get("selected-hash-algorithm", HASH)
        if isinstance(extra_params, dict)
        else HASH
    )
    if not isinstance(chosen, str) or chosen.lower() != HASH:
        raise ProtocolError(f"the KBS chose a hash that we did not offer; we know only {HASH}")


def _cookies(answer: Answer) -> dict[str, str]:
    """Return the cookies that an answer sets, whatever it says about their lifetime.

    Not a cookie jar: that would drop them by the date, which a host can set wrong. The
    client talks to one server only and follows no redirect, so that there is nobody else
    whom they could reach.
    """
    found: dict[str, str] = {}
    for header in answer.headers.get_list("set-cookie"):
        try:
            found.update({name: item.coded_value for name, item in SimpleCookie(header).items()})
        except CookieError as error:
            raise ProtocolError("the KBS set a cookie that is malformed") from error
    if not all(value.isascii() and value.isprintable() for value in found.values()):
        raise ProtocolError("the KBS set a cookie that is malformed")
    return found


def _lifetime(token: str) -> float:
    """Return for how many seconds from now on a new token serves; 0 if it does not say."""
    try:
        _, payload, _ = token.split(".")
        claims: dict[str, Any] = json.decode(
            base64url.decode(payload, "the token's payload"), dict[str, Any], "the token"
        )
        seconds = float(claims["exp"] - claims["iat"])
    except (FormatError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ProtocolError("the KBS sent a token that is not a JWT with iat and exp") from error
    return max(0.0, seconds) * (1 - _MARGIN)

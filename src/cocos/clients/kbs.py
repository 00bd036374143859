# SPDX-License-Identifier: Apache-2.0
"""A guest's side of the key broker service: RCAR handshake 0.4.0 and resources.

Request → Challenge → Attestation → Response. One handshake opens a session that serves
every resource until it ends; concurrent callers share it. The lifetime is measured on our
own monotonic clock, so that a guest with a wrong date still works.
"""

import asyncio
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any, Protocol, Self

import httpx
import msgspec
import structlog

from cocos._types import UnverifiedToken
from cocos.clients._http import Answer, read_ca
from cocos.clients._kbs_http import BASE, OK, decode, open_server, problem_of, refusal, variant
from cocos.clients.kbs_admin import KbsAdmin
from cocos.crypto import base64url
from cocos.crypto.tee_key import EC_P256, TeeKeyPair
from cocos.errors import CocosError, FormatError, IntegrityError, ProtocolError
from cocos.wire import json, kbs

__all__ = ["EvidenceSource", "KbsAdmin", "KbsClient", "Session"]

HASH = "sha384"
_UNAUTHORIZED = 401
# What a KBS says when a session has ended; any other 401 would stay 401 after a new one.
_SESSION_ENDED = {"TokenNotFound", "TokenVerifierError"}
_MARGIN = 0.1  # of a session's lifetime: not used any more

_log = structlog.get_logger(__name__)


class EvidenceSource(Protocol):
    """Where evidence comes from: an attester, or an attestation agent."""

    async def tee(self) -> kbs.Tee:
        """Return the primary TEE."""
        ...

    async def evidence(self, report_data: bytes) -> Any:
        """Return evidence of the primary TEE, as JSON, that carries ``report_data``."""
        ...

    async def additional_evidence(self, report_data: bytes) -> str:
        """Return JSON text, TEE → evidence of each device; empty without devices."""
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
    """

    token: UnverifiedToken = field(repr=False)
    key: TeeKeyPair = field(repr=False)
    cookies: dict[str, str] = field(repr=False)
    ends_at: float


class KbsClient:
    """Attests to one KBS and fetches resources from it; an async context manager.

    Args:
        url: Base URL of the KBS.
        evidence: Who makes evidence.
        ca_file: The only CA to trust, as PEM; the system's CAs without.
        ca: The same as text; ``ca_file`` wins.
        init_data: What the host passed in, for the KBS to appraise.
        key: Key pair for every session; without it every session gets a new one.
        key_algorithm: Kind of new key pairs.
        transport: Instead of the network.
    """

    def __init__(
        self,
        url: str,
        evidence: EvidenceSource,
        *,
        ca_file: Path | None = None,
        ca: str | None = None,
        init_data: kbs.InitData | None = None,
        key: TeeKeyPair | None = None,
        key_algorithm: str = EC_P256,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._server = open_server(url, ca=read_ca(ca_file) or ca, transport=transport)
        self._evidence = evidence
        self._init_data = init_data
        self._key = key
        self._key_algorithm = key_algorithm
        self._session: Session | None = None
        self._failure: CocosError | None = None
        self._lock = asyncio.Lock()

    @property
    def url(self) -> str:
        """Base URL, without a slash at the end."""
        return self._server.url

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._server.__aexit__(*exc_info)

    async def attest(self) -> str:
        """Return an EAR token, from the present session or a new one.

        Raises:
            AuthenticationError: the KBS does not accept our evidence.
            UnreachableError: it does not answer.
            ProtocolError: it answers something else than its protocol.
        """
        return (await self.session()).token

    async def session(self, *, ended: Session | None = None) -> Session:
        """Return the present session, or make a handshake for a new one.

        Callers that wait for the same handshake share its outcome, good or bad.

        Args:
            ended: A session that the KBS does not know any more.
        """
        waited = self._lock.locked()
        async with self._lock:
            session, now = self._session, asyncio.get_running_loop().time()
            if session is not None and session is not ended and now < session.ends_at:
                return session
            if waited and self._failure is not None:
                raise self._failure
            self._session = self._failure = None
            try:
                self._session = await self._handshake()
            except CocosError as error:
                self._failure = error
                raise
            return self._session

    async def get_resource(self, uri: kbs.ResourceUri) -> bytes:
        """Fetch and decrypt a resource.

        A session that ended on the way is renewed once; no other refusal is tried again.

        Raises:
            NotFoundError: there is no such resource.
            AccessDeniedError: the KBS's policy says no.
            AuthenticationError: the KBS does not accept our evidence.
            IntegrityError: the answer does not decrypt with our key.
            UnreachableError: it does not answer.
            ProtocolError: it answers something else than its protocol.
        """
        session = await self.session()
        answer = await self._get(uri, session)
        if _session_ended(answer):
            session = await self.session(ended=session)
            answer = await self._get(uri, session)
        if answer.status != OK:
            raise refusal(self._server, answer, f"the resource {uri}")
        response: kbs.Response = decode(self._server, answer, kbs.Response, f"the resource {uri}")
        try:
            return session.key.decrypt(msgspec.to_builtins(response))
        except FormatError as error:
            raise ProtocolError(f"the KBS at {self.url} sent {uri}, but {error.message}") from error
        except IntegrityError as error:
            raise IntegrityError(
                f"the KBS at {self.url} sent {uri}, but it does not decrypt with our key"
            ) from error

    async def _get(self, uri: kbs.ResourceUri, session: Session) -> Answer:
        return await self._server.request(
            "GET", f"{BASE}/{uri.route}", headers=_cookie_header(session.cookies)
        )

    async def _handshake(self) -> Session:
        tee = await self._evidence.tee()
        request = kbs.Request(
            version=kbs.PROTOCOL_VERSION,
            tee=tee,
            extra_params={"supported-hash-algorithms": [HASH]},
        )
        answer = await self._post("auth", request, {})
        challenge: kbs.Challenge = decode(self._server, answer, kbs.Challenge, "its challenge")
        _check_hash(challenge.extra_params)
        cookies = _cookies(answer)
        if kbs.SESSION_COOKIE not in cookies:
            raise ProtocolError(f"the KBS at {self.url} set no cookie {kbs.SESSION_COOKIE}")
        key = self._key
        if key is None:
            key = await asyncio.to_thread(TeeKeyPair.generate, self._key_algorithm)
        answer = await self._post("attest", await self._attestation(challenge.nonce, key), cookies)
        result: kbs.AttestationResult = decode(
            self._server, answer, kbs.AttestationResult, "its attestation result"
        )
        _log.info("kbs.attested", url=self.url, tee=tee.value)
        return Session(
            token=UnverifiedToken(result.token),
            key=key,
            cookies={**cookies, **_cookies(answer)},
            ends_at=asyncio.get_running_loop().time() + _lifetime(result.token),
        )

    async def _attestation(self, nonce: str, key: TeeKeyPair) -> kbs.Attestation:
        public: kbs.TeePublicKey = msgspec.convert(key.public_jwk(), kbs.TeePublicKey)
        devices = kbs.report_data(kbs.runtime_data(nonce, public))
        additional = await self._evidence.additional_evidence(devices)
        primary = kbs.report_data(kbs.runtime_data(nonce, public, additional))
        return kbs.Attestation(
            runtime_data=kbs.RuntimeData(nonce=nonce, tee_pubkey=public),
            tee_evidence=kbs.TeeEvidence(
                primary_evidence=await self._evidence.evidence(primary),
                additional_evidence=additional,
            ),
            init_data=self._init_data,
        )

    async def _post(self, step: str, body: object, cookies: dict[str, str]) -> Answer:
        answer = await self._server.request(
            "POST",
            f"{BASE}/{step}",
            content=json.encode(body),
            headers={"Content-Type": "application/json", **_cookie_header(cookies)},
        )
        if answer.status != OK:
            what = "a session" if step == "auth" else "our evidence"
            raise refusal(self._server, answer, what)
        return answer


def _session_ended(answer: Answer) -> bool:
    if answer.status != _UNAUTHORIZED:
        return False
    problem = problem_of(answer)
    return problem is not None and variant(problem) in _SESSION_ENDED


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


def _cookie_header(cookies: dict[str, str]) -> dict[str, str]:
    if not cookies:
        return {}
    return {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}


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

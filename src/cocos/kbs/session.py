# SPDX-License-Identifier: Apache-2.0
"""One RCAR session as a state machine: Authed → Spent → Attested. Pure.

A nonce serves one appraisal: before evidence is looked at the session is *spent*, and a
spent session never appraises again, whatever came of the first time. The service stores
each step by compare-and-swap, so that of two attestations at once one finds it spent.

A session keeps to its end the generation of the protocol that it began with.
"""

import base64
import datetime as dt
import hmac
from typing import Final, TypeAlias

import msgspec

from cocos._types import JsonObject
from cocos.errors import AuthenticationError, Finding, FormatError, ProtocolError
from cocos.wire import json
from cocos.wire.kbs.generations import NEWEST, Generation
from cocos.wire.kbs.protocol import Challenge, Request, Tee

NONCE_BYTES: Final = 32

_AGAIN: Final = "start a new handshake with POST /kbs/v0/auth"


class Authed(msgspec.Struct, frozen=True, tag="Authed"):
    """Challenged; waits for evidence that carries ``nonce``.

    ``kept`` is what the attestation service wants back with the evidence; only it can read it.
    """

    tee: Tee
    nonce: str
    expires: dt.datetime
    kept: str | None = None
    generation: Generation = NEWEST


class Spent(msgspec.Struct, frozen=True, tag="Spent"):
    """The nonce has been used; evidence is being appraised, or did not hold.

    ``evidence`` is its digest.
    """

    tee: Tee
    expires: dt.datetime
    generation: Generation = NEWEST
    evidence: str = ""


class Attested(msgspec.Struct, frozen=True, tag="Attested"):
    """Evidence held; ``token`` says of whom, ``findings`` what is not affirming in it."""

    token: str
    expires: dt.datetime
    findings: tuple[Finding, ...] = ()
    generation: Generation = NEWEST
    tee: Tee | None = None
    evidence: str = ""


Session: TypeAlias = Authed | Spent | Attested


def start(
    request: Request,
    *,
    nonce: bytes,
    now: dt.datetime,
    lifetime: dt.timedelta,
    oldest: Generation = Generation.V0_1_1,
) -> tuple[Authed, Challenge]:
    """Begin a session.

    Args:
        request: What the attester announced.
        nonce: 32 random bytes.
        now: Present time.
        lifetime: From now to the end of the session, which nothing extends.
        oldest: The oldest generation to speak.

    Raises:
        FormatError: a protocol version that we do not speak.
    """
    spoken = (NEWEST, *(each for each in NEWEST.older if each >= oldest))
    if request.version not in spoken:
        # Trustee's sentence: guests look for it.
        raise FormatError(
            f"KBS Client Protocol Version Mismatch: expect ={NEWEST} while the "
            f"request is {request.version[:32]}",
            hint=f"this KBS speaks {', '.join(spoken)}",
            findings=(
                Finding(
                    "request.version",
                    "no version of the protocol that is spoken here",
                    request.version,
                    " or ".join(spoken),
                ),
            ),
        )
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a nonce has {NONCE_BYTES} bytes")
    text = base64.b64encode(nonce).decode("ascii")
    generation = Generation(request.version)
    session = Authed(request.tee, text, now + lifetime, generation=generation)
    return session, Challenge(nonce=text)


def demand(session: Authed, nonce: str, params: JsonObject, kept: str) -> tuple[Authed, Challenge]:
    """Challenge the attester as the attestation service asks.

    Args:
        session: Just begun.
        nonce: Of the attestation service, base64 of 32 bytes; takes the place of the session's.
        params: For the attester; stand under the TEE's name in ``extra-params``.
        kept: What the attestation service wants back with the evidence.

    Raises:
        ProtocolError: no such nonce.
    """
    try:
        random = json.b64decode(nonce, "the nonce")
    except FormatError as error:
        raise ProtocolError("the attestation service's challenge has no nonce") from error
    if len(random) != NONCE_BYTES:
        raise ProtocolError(f"a nonce of the attestation service has not {NONCE_BYTES} bytes")
    return (
        msgspec.structs.replace(session, nonce=nonce, kept=kept),
        Challenge(nonce, {session.tee.value: params}),
    )


def waiting(session: Session, now: dt.datetime) -> Authed:
    """Return the session if it still waits for evidence.

    Raises:
        AuthenticationError: it has expired, or its nonce has been used.
    """
    _check_time(session, now)
    if not isinstance(session, Authed):
        raise AuthenticationError("the nonce of this session has been used already", hint=_AGAIN)
    return session


def check_nonce(session: Authed, nonce: str) -> None:
    """Check what an attestation says that it was made for.

    Raises:
        AuthenticationError: another session, or none.
    """
    if not hmac.compare_digest(session.nonce.encode(), nonce.encode()):
        raise AuthenticationError("the nonce is not the one of this session", hint=_AGAIN)


def spend(session: Session, nonce: str, now: dt.datetime, evidence: str = "") -> Spent:
    """Use the session's nonce, before evidence that claims to carry it is appraised.

    Args:
        session: As it is stored.
        nonce: That the evidence claims to carry.
        now: Present time.
        evidence: Digest of the evidence, to be kept.

    Raises:
        AuthenticationError: as :func:`waiting` and :func:`check_nonce`.
    """
    authed = waiting(session, now)
    check_nonce(authed, nonce)
    return Spent(authed.tee, authed.expires, authed.generation, evidence)


def attested(session: Spent, token: str, findings: tuple[Finding, ...] = ()) -> Attested:
    """Return the session after its evidence has held."""
    return Attested(
        token, session.expires, findings, session.generation, session.tee, session.evidence
    )


def use(session: Session, now: dt.datetime) -> Attested:
    """Return the session if its token can be used.

    Raises:
        AuthenticationError: the session has expired or has not attested.
    """
    _check_time(session, now)
    if not isinstance(session, Attested):
        raise AuthenticationError("this session has not attested", hint=_AGAIN)
    return session


def load(data: bytes) -> Session:
    """Read a stored session."""
    session: Session = json.decode(data, Session, "a stored session")
    return session


def dump(session: Session) -> bytes:
    """Write a session for the store."""
    return json.encode(session)


def _check_time(session: Session, now: dt.datetime) -> None:
    if now >= session.expires:
        raise AuthenticationError("the session has expired", hint=_AGAIN)

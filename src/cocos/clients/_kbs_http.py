# SPDX-License-Identifier: Apache-2.0
"""What guests and admins share when they talk to a KBS: base path, bodies, errors."""

from typing import Any, TypeVar

import msgspec

from cocos import errors
from cocos.clients._http import Answer, HttpServer, Transport
from cocos.errors import (
    CocosError,
    ConfigError,
    FormatError,
    ProtocolError,
    TooManyRequestsError,
    UnreachableError,
    retry_after,
    wait_asked,
)
from cocos.wire import json
from cocos.wire.kbs.address import By, KbsAddress
from cocos.wire.kbs.protocol import PROBLEM_TYPE, Problem

BASE = "kbs/v0"
OK = 200
WHAT = "the KBS"
USER_AGENT = "cocos-kbs-client/0.1.0"

T = TypeVar("T")

_MAX_DETAIL = 1000  # characters of a stranger's text that reach a terminal or a log

_KINDS: dict[int, type[CocosError]] = {
    kind.http_status: kind
    for kind in (
        errors.CallerError,
        errors.AuthenticationError,
        errors.AccessDeniedError,
        errors.NotFoundError,
        errors.StateError,
        errors.TooLargeError,
        errors.TooManyRequestsError,
        errors.UnsupportedError,
        errors.UnreachableError,
    )
}
# Titles of our KBS's refusals whose reasons it keeps for its operator.
_EXPLAINED = {errors.EvidenceError.code, errors.AccessDeniedError.code}
# What our KBS puts before its own sentence, in the words of Trustee, and misleads people.
_PREFIXES = ("Plugin internal error: ", "RVPS configuration failed: ")
# Trustee answers 401 to nearly everything; the variant tells more.
_VARIANTS: dict[str, type[CocosError]] = {
    "PolicyDeny": errors.AccessDeniedError,
    "PolicyEngineError": errors.AccessDeniedError,
    "PolicyReject": errors.AccessDeniedError,  # up to v0.10.1
    "PluginNotFound": errors.NotFoundError,
}
_UNAUTHORIZED = 401
_TOO_MANY = 429
# Of the KBS, or of a proxy before it; whatever the body, it can be asked again.
_NOT_NOW = {502, 503, 504}
# What a KBS says when a session has ended; any other 401 would stay 401 after a new one.
_SESSION_ENDED = {
    "TokenNotFound",
    "TokenVerifierError",
    # Trustee up to v0.10.1
    "ExpiredCookie",
    "InvalidCookie",
    "MissingCookie",
    "UnAuthenticatedCookie",
}


def address_of(url: str) -> KbsAddress:
    """Return a KBS's address that a user wrote.

    Raises:
        ConfigError: it is none.
    """
    try:
        return KbsAddress.parse(url)
    except FormatError as error:
        raise ConfigError(f"the URL of {WHAT} is wrong: {error.message}", hint=error.hint) from None


def open_server(address: KbsAddress, *, ca: str | None, transport: Transport | None) -> HttpServer:
    """Return the KBS at an address; see :class:`HttpServer`.

    Args:
        address: What it says of TLS comes first.
        ca: The only CA to trust if the address names nothing.
        transport: Instead of the network.
    """
    named = address.ca if address.by is By.CA else None if address.fingerprints else ca
    return HttpServer(
        address.url,
        what=WHAT,
        user_agent=USER_AGENT,
        ca=named,
        fingerprints=address.fingerprints,
        transport=transport,
    )


def decode(server: HttpServer, answer: Answer, shape: type[T] | Any, what: str) -> T:
    """Decode the body of a good answer.

    Raises:
        ProtocolError: the body is not what the protocol says.
    """
    try:
        result: T = json.decode(answer.body, shape, what)
    except FormatError as error:
        raise ProtocolError(f"{WHAT} at {server.url}: {error.message}") from error
    return result


def problem_of(answer: Answer) -> Problem | None:
    """Return the error body of an answer, or None if there is none."""
    try:
        return msgspec.json.decode(answer.body, type=Problem)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None


def variant(problem: Problem) -> str:
    """Return the name of the error as Trustee writes it, such as ``PolicyDeny``."""
    return problem.type.removeprefix(PROBLEM_TYPE)


def refusal(server: HttpServer, answer: Answer, what: str) -> CocosError:
    """Return the error that an answer other than 200 stands for.

    Args:
        server: Who answered.
        answer: Its answer.
        what: What was asked for: "the resource kbs:///default/key/1".
    """
    error = _refusal(server, answer, what)
    wait = retry_after(answer.headers.get("Retry-After"))
    if wait is not None and isinstance(error, TooManyRequestsError | UnreachableError):
        error.retry_after = wait
        error.message += f"; {wait_asked(wait)}"  # Skopeo passes on nothing but text
    return error


def _refusal(server: HttpServer, answer: Answer, what: str) -> CocosError:
    problem = problem_of(answer)
    if problem is None and answer.status in _NOT_NOW:
        return UnreachableError(
            f"{WHAT} at {server.url} cannot serve {what} now: status {answer.status}",
            hint="is it starting, or is a proxy before it without one?",
        )
    if problem is None and answer.status == _TOO_MANY:
        return TooManyRequestsError(f"{WHAT} at {server.url} is too busy for {what}")
    if problem is None:
        return ProtocolError(
            f"{WHAT} at {server.url} answered status {answer.status} to {what}, "
            "without the error body of its protocol",
            hint="is this really a KBS?",
        )
    kind = _VARIANTS.get(variant(problem)) or _KINDS.get(answer.status, ProtocolError)
    if answer.status in _NOT_NOW:
        kind = UnreachableError
    identity = one_line(problem.id)
    hints = [one_line(problem.hint)] if problem.hint else []
    if answer.status == _UNAUTHORIZED and variant(problem) == "PluginInternalError":
        # Trustee's answer whatever is the matter; it is not about who we are.
        kind = errors.PeerError
        hints.append("does it exist? Trustee's KBS does not tell that from its own faults")
    if identity and problem.title in _EXPLAINED:
        hints.append(f"the KBS's operator sees why: kbs-client explain {identity}")
    elif identity:
        hints.append(f"the KBS's log knows this as {identity}")
    detail = problem.detail
    for prefix in _PREFIXES if problem.title else ():
        detail = detail.removeprefix(prefix)
    return kind(
        f"{WHAT} at {server.url} refused {what}: {one_line(detail)}",
        hint="; ".join(hints) or None,
    )


def session_ended(answer: Answer) -> bool:
    """Tell whether a KBS does not know a session any more: it ended, or the KBS lost it."""
    if answer.status != _UNAUTHORIZED:
        return False
    problem = problem_of(answer)
    return problem is not None and variant(problem) in _SESSION_ENDED


def one_line(text: str) -> str:
    """Return one line of a stranger's text without control characters."""
    return "".join(char if char.isprintable() else " " for char in text[:_MAX_DETAIL]).strip()

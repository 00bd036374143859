# SPDX-License-Identifier: Apache-2.0
"""What a registry, or what stands before it, said: Skopeo's text in, our error out."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from cocos import errors
from cocos.errors import CocosError

_REGISTRY = re.compile(r"(?:pinging container registry (\S+?): |\"https?://([^/\"]+)/)")
_IN_NAME = re.compile(r"docker://([^/\s\"]+)/")
_STATUS = re.compile(
    r"(?:StatusCode: |unexpected HTTP status: |invalid status code from registry "
    r"|error parsing HTTP |unexpected status code |status code )(\d{3})\b(?P<rest>.*)",
    re.DOTALL,
)
_PAGE = re.compile(r"<(?:!doctype html|html|head|title|body)\b", re.IGNORECASE)
_TITLE = re.compile(r"<title>(.*?)(?:</title>|$)", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^>]*>?")
_SHOWN = 300

_LOGIN = (
    "skopeo login --authfile FILE REGISTRY, and REGISTRY_AUTH_FILE=FILE; "
    "for a VM: agent create --registry-credentials"
)
_LATER = "try again later"
_BETWEEN = "a proxy or a network's login page stands in between: HTTPS_PROXY and NO_PROXY say how"


@dataclass(frozen=True, slots=True)
class _Rule:
    """One kind of trouble, by what Skopeo writes about it."""

    pattern: re.Pattern[str]
    kind: Callable[..., CocosError]
    sentence: str
    hint: str


def _rule(pattern: str, kind: Callable[..., CocosError], sentence: str, hint: str) -> _Rule:
    return _Rule(re.compile(pattern, re.IGNORECASE), kind, sentence, hint)


# The first that fits counts. {place} is the registry, {said} what was written from the match on.
_RULES = (
    _rule(
        r"server gave HTTP response to HTTPS client",
        errors.ProtocolError,
        "{place} speaks plain http; https is needed except on loopback",
        "give the registry a certificate, or name it in a registries.conf",
    ),
    _rule(
        r"proxyconnect|proxy authentication required",
        errors.UnreachableError,
        "the proxy before {place} does not let us through: {said}",
        "HTTPS_PROXY and NO_PROXY say which proxy is asked, and for what",
    ),
    _rule(
        r"certificate has expired or is not yet valid",
        errors.ProtocolError,
        "the certificate of {place} is not accepted: {said}",
        "the registry needs a new one, or this machine's clock is wrong",
    ),
    _rule(
        r"certificate is valid for|contain any IP SANs|relies on legacy Common Name",
        errors.ProtocolError,
        "the certificate of {place} is not accepted: {said}",
        "name the registry as its certificate does",
    ),
    _rule(
        r"tls: failed to verify|x509: |tls: ",
        errors.ProtocolError,
        "the certificate of {place} is not accepted: {said}",
        "if its CA is a private one: SSL_CERT_FILE=CA.pem; for a VM: agent create --registry-ca",
    ),
    _rule(
        r"toomanyrequests|too many requests",
        errors.TooManyRequestsError,
        "{place} takes no more requests for now: {said}",
        f"{_LATER}, or log in: limits are higher then ({_LOGIN})",
    ),
    _rule(
        r"no space left on device",
        errors.StorageError,
        "there is no space left: {said}",
        "make room in the destination and in TMPDIR",
    ),
    _rule(
        r"manifest unknown|name unknown|not known to registry|no such file or directory",
        errors.NotFoundError,
        "there is no such image: {text}",
        "is the name right, tag and all?",
    ),
    _rule(
        r"authentication required|unauthorized|(?<!permission )\bdenied\b"
        r"|invalid username/password",
        errors.AuthenticationError,
        "{place} wants other credentials: {said}",
        _LOGIN,
    ),
    _rule(
        r"unsupported schema version|unsupported manifest media type|unsupported docker v2s2",
        errors.ProtocolError,
        "{place} gives the image a type that cannot be read: {said}",
        "does a proxy or mirror change the Content-Type of manifests?",
    ),
    _rule(
        r"unexpected EOF|connection reset|broken pipe|stream error|http2: |connection broken",
        errors.UnreachableError,
        "{place} broke off in the middle: {said}",
        f"{_LATER}; if it happens again, look at what stands before the registry",
    ),
    _rule(
        r"dial tcp|no such host|i/o timeout|TLS handshake timeout|context deadline exceeded"
        r"|Client\.Timeout|network is unreachable|no route to host|: EOF",
        errors.UnreachableError,
        "{place} does not answer: {said}",
        "is it running, and is the address right?",
    ),
)

_FORBIDDEN = 403
_FAILED = 500
_NO_REGISTRY = (errors.ProtocolError, "is this a registry?")
_BY_STATUS: dict[int, tuple[Callable[..., CocosError], str]] = {
    401: (errors.AuthenticationError, _LOGIN),
    403: (errors.AuthenticationError, _LOGIN),
    404: (errors.NotFoundError, "is the name right, tag and all?"),
    407: (errors.UnreachableError, "HTTPS_PROXY and NO_PROXY say which proxy is asked"),
    408: (errors.UnreachableError, _LATER),
    413: (errors.TooLargeError, "what stands before the registry limits the size of a layer"),
    429: (errors.TooManyRequestsError, _LATER),
}


def translate(text: str, subject: str) -> CocosError | None:
    """Return our error for what Skopeo wrote about a registry, None for other trouble."""
    found = _REGISTRY.search(text) or _IN_NAME.search(subject)
    names = [name for name in found.groups() if name] if found else []
    place = f"the registry {names[0]}" if names else "the registry"
    status = _STATUS.search(text)
    if status is not None:
        return _answered(int(status[1]), status["rest"], subject, place)
    for rule in _RULES:
        match = rule.pattern.search(text)
        if match is not None:
            said = tidy(text[match.start() :])[:_SHOWN]
            sentence = rule.sentence.format(place=place, said=said, text=tidy(text)[-_SHOWN:])
            return rule.kind(f"{subject}: {sentence}", hint=rule.hint)
    return None


def web_page(data: bytes, subject: str) -> CocosError | None:
    """Return the error for a document that is a web page, as some networks answer everything."""
    text = data[:4096].decode("utf-8", "replace")
    return _page(200, text, subject, "the registry") if _PAGE.match(text.lstrip()) else None


def too_many(subject: str, *, after: str, words: str) -> CocosError:
    """Return the error for a registry that wants a pause longer than anybody waits.

    Args:
        subject: What was being done.
        after: Its ``Retry-After``, or what Skopeo made of it; seconds or a date.
        words: What it says about it, or empty.
    """
    seconds = float(after) if after.isascii() and after.isdigit() else 60.0
    until = f"{after} s" if after.isdigit() else after
    said = f": {words[:_SHOWN]}" if words else ""
    return errors.TooManyRequestsError(
        f"{subject}: the registry takes no more requests for now (429, Retry-After: {until}){said}",
        retry_after=seconds,
        hint=f"{_LATER}, or log in: limits are higher then ({_LOGIN})",
    )


def _answered(status: int, rest: str, subject: str, place: str) -> CocosError:
    failed = status >= _FAILED
    if _PAGE.search(rest) and not failed and (status == _FORBIDDEN or status not in _BY_STATUS):
        return _page(status, rest, subject, place)
    words = plain(rest)
    usual = (errors.UnreachableError, _LATER) if failed else _NO_REGISTRY
    kind, hint = _BY_STATUS.get(status, usual)
    said = f"{status}: {words}" if words else str(status)
    return kind(f"{subject}: {place} answered {said[:_SHOWN]}", hint=hint)


def _page(status: int, text: str, subject: str, place: str) -> CocosError:
    words = plain(text)
    return errors.UnreachableError(
        f"{subject}: instead of {place} a web page answered ({status}): {words[:_SHOWN]}",
        hint=_BETWEEN,
    )


def plain(text: str) -> str:
    """Return the words of an answer: its title, or its text without tags and Go's punctuation."""
    title = _TITLE.search(text)
    words = title[1] if title and title[1].strip() else text
    return " ".join(_TAG.sub(" ", words.replace('\\"', '"')).split()).strip(" \"'(),.:")


def tidy(text: str) -> str:
    """Return a text without the marks that Go's programs leave at its ends."""
    return text.strip().rstrip('"').rstrip("- ").strip()

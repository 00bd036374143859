# SPDX-License-Identifier: Apache-2.0
"""Which KBS, and how it proves to a guest that it is that one: one text says both.

``https://kbs.example:8080#cert-sha256=…`` is the URL, and in the fragment, which never
travels, what the KBS must show:

``ca``
    A CA (or self-signed certificate) that its TLS certificate leads to: DER in base64url.
``cert-sha256``
    The SHA-256, hex, of its TLS certificate.
``token-key``
    The RFC 7638 thumbprint of the key that signs its attestation tokens; it signs its answers
    with that (:mod:`cocos.wire.kbs.proof`), over ``http`` as well.

A name may be repeated, joined by ``&``: any of them will do. Every such text has one spelling,
so that whoever compares two of them compares what they mean.
"""

import base64
import enum
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import urlsplit

from cocos._types import JsonObject
from cocos.crypto import base64url
from cocos.errors import FormatError
from cocos.wire.address import check_host, shown, split
from cocos.wire.json import b64decode

MAX_ADDRESS: Final = 8192
MAX_PROOFS: Final = 4

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._~-]+)*", re.ASCII)
_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_END: Final = "-----END CERTIFICATE-----"
_PEM: Final = re.compile(f"{_BEGIN}([A-Za-z0-9+/=\\s]+){_END}", re.ASCII)
_HINT: Final = "http://HOST:PORT or https://HOST[:PORT], with #token-key=… or #cert-sha256=…"


class By(enum.StrEnum):
    """What a KBS is known by."""

    CA = "ca"
    CERTIFICATE = "cert-sha256"
    TOKEN_KEY = "token-key"  # noqa: S105 - the name of a kind
    PUBLIC_CAS = "public-cas"
    """Any CA of the guest's image says that it has the name in the URL."""
    NOTHING = "nothing"
    """Whoever answers is believed."""


_TLS: Final = frozenset({By.CA, By.CERTIFICATE})
_NAMED: Final = frozenset({*_TLS, By.TOKEN_KEY})
_FORMS: Final = {
    By.CERTIFICATE: re.compile(r"[0-9a-f]{64}", re.ASCII),
    By.TOKEN_KEY: re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]", re.ASCII),
}


@dataclass(frozen=True, slots=True)
class KbsAddress:
    """The address of a KBS.

    Attributes:
        url: Base URL, in its one spelling, without fragment and slashes at its end.
        by: What the KBS is known by.
        proofs: Values of ``by`` as in the fragment, sorted; empty where ``by`` has none.
    """

    url: str
    by: By = By.NOTHING
    proofs: tuple[str, ...] = field(default=())

    @classmethod
    def parse(cls, text: str) -> "KbsAddress":
        """Parse an address; blanks, users, queries and unknown fragments are refused.

        Raises:
            FormatError: anything else than described above.
        """
        problem = FormatError(f"this is not the URL of a KBS: {shown(text)}", hint=_HINT)
        if len(text) > MAX_ADDRESS:
            raise problem
        plain, mark, fragment = text.partition("#")
        url = _canonical(plain, problem)
        if not mark:
            return cls(url, By.PUBLIC_CAS if url.startswith("https:") else By.NOTHING)
        by, proofs = _proofs(fragment)
        return _checked(cls(url, by, proofs))

    def with_ca(self, pem: str) -> "KbsAddress":
        """Return the address of the same KBS, known by the CAs of a PEM text.

        Raises:
            FormatError: no certificates, too many, the KBS is already known by something else,
                or it is spoken to without TLS.
        """
        if self.by in _NAMED:
            raise FormatError(f"{self.url} is known by {self.by}; a CA beside it says it twice")
        blocks = _PEM.findall(pem)
        if not blocks or "-----" in _PEM.sub("", pem):
            raise FormatError("the CA certificate for the KBS is not PEM")
        ders = (b64decode("".join(block.split()), "the CA certificate") for block in blocks)
        proofs = {base64url.encode(der) for der in ders}
        return _checked(replace(self, by=By.CA, proofs=tuple(sorted(proofs))))

    def trusted_like(self, configured: "KbsAddress | None") -> "KbsAddress":
        """Return how this KBS is to be reached by who was told of ``configured``.

        Where both are on one host and port, and this text says nothing of its own, it is that
        KBS: who can answer in plain text, or with a public certificate, is not.

        Raises:
            FormatError: the two together are too long.
        """
        if (
            configured is None
            or self.by in _NAMED
            or configured.by is By.NOTHING
            or self.place != configured.place
        ):
            return self
        # What TLS was named for is not given up by writing http.
        secure = any(each.url.startswith("https:") for each in (self, configured))
        scheme = "https" if secure else "http"
        place, path = urlsplit(configured.url).netloc, urlsplit(self.url).path
        url = KbsAddress.parse(f"{scheme}://{place}{path}").url
        return _checked(replace(configured, url=url))

    @property
    def authenticated(self) -> bool:
        """Whether another one that answers instead is found out."""
        return self.by is not By.NOTHING

    @property
    def ca(self) -> str | None:
        """The CAs, as PEM; None if it is known by something else."""
        if self.by is not By.CA:
            return None
        texts = (base64.encodebytes(_der(each)).decode("ascii") for each in self.proofs)
        return "".join(f"{_BEGIN}\n{text}{_END}\n" for text in texts)

    @property
    def fingerprints(self) -> frozenset[str]:
        """SHA-256, hex, of the TLS certificates that will do; empty: not known by that."""
        return frozenset(self.proofs if self.by is By.CERTIFICATE else ())

    @property
    def token_keys(self) -> frozenset[str]:
        """Thumbprints of the signing keys that will do; empty: not known by that."""
        return frozenset(self.proofs if self.by is By.TOKEN_KEY else ())

    @property
    def place(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme]

    def claim(self) -> JsonObject:
        """Return what a policy is told of this address; a CA shows as its SHA-256."""
        proofs = self.proofs
        if self.by is By.CA:
            proofs = tuple(sorted(hashlib.sha256(_der(each)).hexdigest() for each in proofs))
        return {
            "url": self.url,
            "authenticated": self.authenticated,
            "by": self.by.value,
            "proofs": list(proofs),
        }

    def __str__(self) -> str:
        fragment = "&".join(f"{self.by.value}={each}" for each in self.proofs)
        return f"{self.url}#{fragment}" if fragment else self.url


def _checked(address: KbsAddress) -> KbsAddress:
    if address.by in _TLS and not address.url.startswith("https:"):
        raise FormatError(
            f"{address.url} shows no certificate: without TLS a KBS is not known by {address.by}",
            hint="write https://, or name its #token-key=…",
        )
    if len(address.proofs) > MAX_PROOFS or len(str(address)) > MAX_ADDRESS:
        raise FormatError(f"{address.url} is known by more than {MAX_PROOFS} things, or too long")
    return address


def _canonical(text: str, problem: FormatError) -> str:
    parts, port = split(text, problem)
    path = parts.path.rstrip("/")
    if (
        parts.scheme not in _DEFAULT_PORTS
        or any(sign in text for sign in "@?#\\%")
        or port == 0
        or not _PATH.fullmatch(path)
        or any(part in {".", ".."} for part in path.split("/"))
    ):
        raise problem
    host = check_host(parts.hostname or "", problem)
    place = f"[{host}]" if ":" in host else host
    numbered = "" if port in {None, _DEFAULT_PORTS[parts.scheme]} else f":{port}"
    return f"{parts.scheme}://{place}{numbered}{path}"


def _proofs(fragment: str) -> tuple[By, tuple[str, ...]]:
    pairs = [part.partition("=")[::2] for part in fragment.split("&")]
    kinds = {name for name, _ in pairs}
    by = next((each for each in _NAMED if kinds == {each.value}), None)
    if by is None:
        raise FormatError(
            f"a KBS is known by one of {', '.join(sorted(_NAMED))}, not by {fragment[:100]!r}"
        )
    values = [value for _, value in pairs]
    for value in values:
        _check_proof(by, value)
    if len(set(values)) != len(values):
        raise FormatError(f"the address of a KBS names the same {by} twice")
    return by, tuple(sorted(values))


def _check_proof(by: By, value: str) -> None:
    if by is By.CA:
        if not _der(value):
            raise FormatError("the CA in the address of a KBS is empty")
    elif not _FORMS[by].fullmatch(value):
        raise FormatError(
            f"{value[:100]!r} is no {by}",
            hint="64 lower-case hex digits, or a key's name of 43 characters",
        )


def _der(value: str) -> bytes:
    return base64url.decode(value, "the CA in the address of a KBS")


_UNNAMED: Final[JsonObject] = {
    "url": None,
    "authenticated": False,
    "by": By.NOTHING.value,
    "proofs": [],
}


def claims_of(addresses: Sequence[KbsAddress | None]) -> JsonObject:
    """Return what a policy is told of all KBSs that a machine was told of.

    Args:
        addresses: None stands for one that nothing measured names.
    """
    named = [_UNNAMED if each is None else each.claim() for each in dict.fromkeys(addresses)]
    return {
        "authenticated": bool(named) and all(each["authenticated"] for each in named),
        "by": sorted({each["by"] for each in named}),
        "named": named,
    }

# SPDX-License-Identifier: Apache-2.0
"""Addresses of gRPC servers as people write them: ``http://HOST:PORT`` or ``HOST:PORT``."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

from cocos.errors import FormatError

CVMS_PORT: Final = 7001

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_PLACE = re.compile(r"(?:\[[0-9A-Fa-f.]*:[^\[\]]*\]|[^\[\]:]*)(?::[0-9]*)?")
_NUMBER = re.compile(r"[0-9]+|0[Xx][0-9A-Fa-f]*")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is.

    Attributes:
        scheme: ``http``, ``https``, or empty when none was written.
        host: Name or IP address, without brackets.
        port: 1 to 65535.
    """

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        """Return ``host:port`` as gRPC wants it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, *, what: str, default_port: int) -> Address:
    """Parse ``http://HOST:PORT``, ``https://HOST:PORT`` or ``HOST:PORT``.

    Args:
        text: What somebody wrote.
        what: Whose address it is, for the message: "the CVMS".
        default_port: For an address without a port.

    Raises:
        FormatError: anything else.
    """
    hint = f"write http://HOST:{default_port} or HOST:{default_port}"
    if not text:
        raise FormatError(f"the address of {what} is missing", hint=hint)
    problem = FormatError(f"{text[:200]!r} is no address of {what}", hint=hint)
    parts, port = split(text if "://" in text else f"//{text}", problem)
    port = default_port if port is None else port
    extra = parts.path.rstrip("/") or parts.query or parts.fragment or "@" in parts.netloc
    if parts.scheme not in {"", "http", "https"} or extra or not port:
        raise problem
    return Address(parts.scheme, check_host(parts.hostname or "", problem), port)


def parse_cvms(text: str, *, ca: bool, certificate: bool) -> Address:
    """Parse the address of a CVMS, whose connection has TLS where there is a CA for it.

    Args:
        text: What somebody wrote.
        ca: Whether they gave a CA that its certificate must chain to.
        certificate: Whether they gave a certificate to show, which is shown by TLS alone.

    Raises:
        FormatError: no address, or one without the other of what TLS needs.
    """
    cvms = parse_address(text, what="the CVMS", default_port=CVMS_PORT)
    if not ca and (certificate or cvms.scheme == "https"):
        raise FormatError(
            "TLS to the CVMS needs the CA certificate that its certificate must chain to",
            hint="give --cvms-ca",
        )
    if cvms.scheme == "http" and ca:
        raise FormatError(
            f"{text[:200]} says plaintext, but a CA certificate was given",
            hint="write https://, or leave --cvms-ca out",
        )
    return cvms


def split(text: str, problem: FormatError) -> tuple[SplitResult, int | None]:
    """Return the parts of a URL and its port, or raise ``problem``.

    ``urlsplit`` leaves things out without a word: blanks, and what stands around brackets.
    """
    if not text.isascii() or not text.isprintable() or " " in text:
        raise problem
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise problem from None
    if not _PLACE.fullmatch(parts.netloc):
        raise problem
    return parts, port


def shown(text: str) -> str:
    """Return an address as messages show it: not where it may hold a password."""
    return "what stands there is not shown" if "@" in text else repr(text[:200])


def check_host(host: str, problem: FormatError) -> str:
    """Return a host name or IP address (IPv6 without brackets), or raise ``problem``.

    What resolvers take for a number is one IPv4 address, written as one: ``127.1``,
    ``0x7f.1`` and ``::ffff:127.0.0.1`` would be other spellings of a place that somebody
    compares by its text.
    """
    if ":" in host or _NUMBER.fullmatch(host.rpartition(".")[2]):
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            raise problem from None
        if getattr(address, "ipv4_mapped", None) is not None:  # Pythons differ in its text, too
            raise problem
        return str(address)
    if not _HOST.fullmatch(host):
        raise problem
    return host

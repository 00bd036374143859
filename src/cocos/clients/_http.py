# SPDX-License-Identifier: Apache-2.0
"""HTTP to one server: TLS always verified, no redirects, no proxies, bounded answers.

The server's certificate is checked against the system's CAs, or against nothing but the
CA, or the certificate itself, that the user named. Failures of the network become
:class:`UnreachableError`, with the URL that was tried.
"""

import asyncio
import os
import re
import ssl
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

import h11

from cocos.clients._h11 import H11Transport
from cocos.clients._transport import (
    Answer,
    NotConnectedError,
    StrangerError,
    TooMuchError,
    Transport,
)
from cocos.errors import (
    CocosError,
    ConfigError,
    FormatError,
    ProtocolError,
    UnreachableError,
    UntrustedError,
)
from cocos.host.files import read_certificates
from cocos.wire.address import check_host, shown, split

ANSWER_SECONDS: Final = 60.0  # for a whole exchange, as the guest components' client waits
MAX_ANSWER_BYTES: Final = 64 * 2**20

_NO_TLS: Final = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"}
_ERRNO = re.compile(r"\[Errno (\d+)\]")

__all__ = ["Answer", "HttpServer", "Transport", "read_ca"]


class HttpServer:
    """One server, by its base URL.

    Args:
        url: ``http://host[:port][/path]`` or ``https://…``.
        what: What the server is, for messages: "the KBS".
        ca: The only CA (or self-signed certificate) to trust, as PEM; the system's without.
        fingerprints: Instead of CAs: SHA-256, hex, of the only certificates to speak to,
            whatever names and dates stand in them.
        user_agent: The name to be called by.
        transport: Instead of the network.

    Raises:
        ConfigError: the URL or the CA cannot be used, or without TLS nothing could be checked.
    """

    def __init__(
        self,
        url: str,
        *,
        what: str,
        user_agent: str,
        ca: str | None = None,
        fingerprints: Collection[str] = (),
        transport: Transport | None = None,
    ) -> None:
        self.url = _check_url(url, what)
        self._what = what
        parts = urlsplit(self.url)
        self._path = parts.path
        self._fingerprints = frozenset(fingerprints)
        secure = parts.scheme == "https"
        if not secure and (ca is not None or fingerprints):
            raise ConfigError(
                f"{what} at {self.url} shows no certificate, but one was named to know it by",
                hint="write https://",
            )
        # The system's CAs take a while to read.
        tls = _tls_context(ca, what, pinned=bool(fingerprints)) if secure else None
        self._transport = transport or H11Transport(self.url, tls, self._fingerprints)
        self._headers = {"User-Agent": user_agent, "Accept-Encoding": "identity", "Accept": "*/*"}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.close()

    async def request(
        self,
        method: str,
        route: str,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request and read its whole answer, whatever the status.

        Args:
            method: HTTP method.
            route: Path below the base URL, with query, percent-encoded.
            content: Body.
            headers: Further headers.

        Raises:
            UntrustedError: TLS does not show that it is the one.
            UnreachableError: no connection, or no answer in time.
            ConfigError: its name cannot be one of a host.
            ProtocolError: no HTTP, or an answer without end.
        """
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._transport.send(
                    method,
                    f"{self._path}/{route}",
                    {**self._headers, **(headers or {})},
                    content or b"",
                    MAX_ANSWER_BYTES,
                )
        except NotConnectedError as error:
            raise self._unreachable(error.reason, begun=False) from error
        except StrangerError as error:
            raise UntrustedError(
                f"{self._what} at {self.url} is another one: its certificate has SHA-256 {error}, "
                f"not {' or '.join(sorted(self._fingerprints))}",
                hint="did its certificate change, or does somebody answer in its place?",
            ) from error
        except TooMuchError as error:
            raise ProtocolError(
                f"{self._what} at {self.url} sent more than {MAX_ANSWER_BYTES} bytes"
            ) from error
        except h11.RemoteProtocolError as error:
            raise ProtocolError(
                f"what answers at {self.url} is not {self._what}: {error}",
                hint="http:// or https://?",
            ) from error
        except OSError as error:
            raise self._unreachable(error, begun=True) from error

    def _unreachable(self, error: OSError | UnicodeError, *, begun: bool) -> CocosError:
        if isinstance(error, TimeoutError):
            return UnreachableError(
                f"{self._what} at {self.url} did not answer in time",
                hint="is the address right, and does the network let the connection through?",
            )
        if isinstance(error, UnicodeError):  # of the resolver
            return ConfigError(f"{self.url} names no host that can be looked up")
        if isinstance(error, ssl.SSLCertVerificationError):
            return UntrustedError(
                f"the certificate of {self._what} at {self.url} is not trusted: "
                f"{error.verify_message}",
                hint="name the CA that signed it, or itself if self-signed, as PEM "
                "(kbs-client: --kbs-ca)",
            )
        if isinstance(error, ssl.SSLError) and error.reason in _NO_TLS:
            return UntrustedError(
                f"{self._what} at {self.url} does not speak TLS",
                hint="http:// instead of https://?",
            )
        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            return UntrustedError(
                f"no TLS with {self._what} at {self.url}: {_reason(error)}",
                hint="do both sides know a common version of TLS?",
            )
        return UnreachableError(
            f"{self._what} at {self.url} cannot be reached: {_reason(error)}",
            hint="it ended the connection: does it start again? http:// or https://?"
            if begun
            else "is it running, and is the address right?",
        )


def _reason(error: OSError) -> str:
    """Return why, without the addresses that asyncio puts into the text."""
    number = error.errno or 0
    tried = _ERRNO.search(str(error))
    if number == 0 and tried:  # several addresses were tried
        number = int(tried[1])
    # Resolvers have negative numbers, and TLS its own.
    is_ssl = isinstance(error, ssl.SSLError)
    return os.strerror(number) if number > 0 and not is_ssl else error.strerror or str(error)


def read_ca(ca_file: Path | None) -> str | None:
    """Return the text of a CA file, for :class:`HttpServer`.

    Raises:
        ConfigError: it cannot be read, or holds no certificate.
    """
    if ca_file is None:
        return None
    return read_certificates(ca_file, "the CA certificate").decode("ascii", "ignore")


def _check_url(url: str, what: str) -> str:
    problem = FormatError(f"the URL of {what} names no host")
    try:
        parts, port = split(url, problem)
        valid = (
            parts.scheme in {"http", "https"}
            and bool(check_host(parts.hostname or "", problem))
            and port != 0
            and "@" not in parts.netloc
            and not parts.query
            and not parts.fragment
        )
    except FormatError:
        valid = False
    if not valid:
        raise ConfigError(
            f"the URL of {what} is wrong: {shown(url)}",
            hint="http://HOST:PORT or https://HOST[:PORT]",
        )
    return url.rstrip("/")


def _tls_context(ca: str | None, what: str, *, pinned: bool) -> ssl.SSLContext:
    if pinned:
        # Not by names and dates: the transport knows the certificate.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    if ca is None:
        return ssl.create_default_context()
    # Not create_default_context(cadata=…): that trusts the system if the text is empty.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=ca)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"the CA certificate for {what} is not PEM", hint="-----BEGIN CERTIFICATE-----"
        ) from error
    # A self-signed server certificate can be named as well as a CA.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context

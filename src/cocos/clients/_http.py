# SPDX-License-Identifier: Apache-2.0
"""HTTP to one server: TLS always verified, no redirects, no proxies, bounded answers.

The server's certificate is checked against the system's CAs, or against nothing but the
CA that the user named. Failures of the network become :class:`UnreachableError`, with the
URL that was tried.
"""

import asyncio
import os
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import httpx

from cocos.errors import ConfigError, ProtocolError, UnreachableError
from cocos.host.files import read_file

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0  # for a whole exchange, as the guest components' client waits
MAX_ANSWER_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer: status, headers in order, body."""

    status: int
    headers: httpx.Headers
    body: bytes


class HttpServer:
    """One server, by its base URL.

    Args:
        url: ``http://host[:port][/path]`` or ``https://…``.
        what: What the server is, for messages: "the KBS".
        ca: The only CA (or self-signed certificate) to trust, as PEM; the system's without.
        user_agent: The name to be called by.
        transport: Instead of the network, such as an ASGI application.

    Raises:
        ConfigError: the URL or the CA cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        what: str,
        user_agent: str,
        ca: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = _check_url(url, what)
        self._what = what
        self._client = httpx.AsyncClient(
            verify=_tls_context(ca, what),
            transport=transport,
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            follow_redirects=False,
            # No proxy and no CA that merely the environment names.
            trust_env=False,
            # Callers keep cookies if they want to: a jar would mix sessions, and drop by date.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            headers={"User-Agent": user_agent, "Accept-Encoding": "identity"},
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

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
            UnreachableError: no connection, no TLS, or no answer in time.
            ProtocolError: no HTTP, or an answer without end.
        """
        url = f"{self.url}/{route}"
        try:
            async with (
                asyncio.timeout(ANSWER_SECONDS),
                self._client.stream(
                    method, url, content=content, headers=dict(headers or {})
                ) as response,
            ):
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        raise ProtocolError(
                            f"{self._what} at {self.url} sent more than {MAX_ANSWER_BYTES} bytes"
                        )
                return Answer(response.status_code, response.headers, bytes(body))
        except (httpx.TimeoutException, TimeoutError) as error:
            raise UnreachableError(
                f"{self._what} at {self.url} did not answer in time",
                hint="is the address right, and does the network let the connection through?",
            ) from error
        except httpx.RemoteProtocolError as error:
            raise ProtocolError(
                f"what answers at {self.url} is not {self._what}: {error}",
                hint="http:// or https://?",
            ) from error
        except httpx.NetworkError as error:
            raise self._unreachable(error) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ProtocolError(
                f"the exchange with {self._what} at {self.url} failed: {error}"
            ) from error

    def _unreachable(self, error: httpx.NetworkError) -> UnreachableError:
        reason = str(error)
        for cause in _causes(error):
            if isinstance(cause, ssl.SSLCertVerificationError):
                return UnreachableError(
                    f"the certificate of {self._what} at {self.url} is not trusted: "
                    f"{cause.verify_message}",
                    hint="name the CA that signed it, or itself if self-signed, as PEM "
                    "(kbs-client: --cert-file)",
                )
            if isinstance(cause, OSError) and cause.strerror:
                # asyncio puts the address into strerror; resolvers have negative numbers.
                number = cause.errno or 0
                reason = os.strerror(number) if number > 0 else cause.strerror
        return UnreachableError(
            f"{self._what} at {self.url} cannot be reached: {reason}",
            hint="is it running, and is the address right?",
        )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what led to it, the first of several at a time."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        group = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else None
        cause = group or cause.__cause__ or cause.__context__


def read_ca(ca_file: Path | None) -> str | None:
    """Return the text of a CA file, for :class:`HttpServer`.

    Raises:
        ConfigError: it cannot be read.
    """
    if ca_file is None:
        return None
    return read_file(ca_file, "the CA certificate").decode("ascii", "ignore")


def _check_url(url: str, what: str) -> str:
    try:
        parts = urlsplit(url)
        valid = (
            parts.scheme in {"http", "https"}
            and bool(parts.hostname)
            and parts.port != 0
            and "@" not in parts.netloc
            and not parts.query
            and not parts.fragment
        )
    except ValueError:
        valid = False
    if not valid:
        # Not the URL itself: it may hold a password.
        raise ConfigError(
            f"the URL of {what} is wrong", hint="http://HOST:PORT or https://HOST[:PORT]"
        )
    return url.rstrip("/")


def _tls_context(ca: str | None, what: str) -> ssl.SSLContext:
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

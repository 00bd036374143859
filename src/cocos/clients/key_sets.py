# SPDX-License-Identifier: Apache-2.0
"""Public keys of an issuer, from a file or over HTTPS, followed as it changes them.

A file must be there from the beginning. An issuer on the network may be away: whoever
needs its keys then is told so, and everybody else is served. Keys are used for an hour
without looking again, and for a day when the issuer does not answer; a key that is not
known yet is looked for at once. Nobody can make us look more often than twice a minute, or
wait for a slow issuer for more than some seconds, and then only whom its answer concerns.
"""

import abc
import asyncio
import contextlib
import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import unquote, urlsplit

import msgspec
import structlog

from cocos._clock import Clock
from cocos.clients._http import HttpServer, Transport
from cocos.crypto import jwk, jwt
from cocos.crypto.jwk import VerificationKey
from cocos.errors import (
    AuthenticationError,
    CocosError,
    ConfigError,
    FormatError,
    ProtocolError,
    UnreachableError,
)
from cocos.host.files import read_file
from cocos.wire import json

FRESH: Final = dt.timedelta(hours=1)
KEPT: Final = dt.timedelta(days=1)
PAUSE: Final = dt.timedelta(seconds=30)
PATIENCE_SECONDS: Final = 5.0
_LIMIT: Final = 2**20
_OK: Final = 200
_DISCOVERY: Final = "/.well-known/openid-configuration"

Parse: TypeAlias = Callable[[bytes, str], tuple[VerificationKey, ...]]

_log = structlog.get_logger(__name__)


def parse_pem(data: bytes, what: str) -> tuple[VerificationKey, ...]:
    """Load the one key of a PEM file; see :func:`cocos.crypto.jwk.from_pem`."""
    return (jwk.from_pem(data, what),)


class _Discovery(msgspec.Struct, frozen=True):
    """What we need of an OpenID provider's metadata."""

    jwks_uri: str


class FollowedKeys(abc.ABC):
    """Keys of an issuer who may change them.

    Args:
        place: Where they are, for messages.
        clock: Decides how old they are.
        fresh: For how long they are used without looking again.
    """

    def __init__(self, place: str, *, clock: Clock, fresh: dt.timedelta = FRESH) -> None:
        self.place = place
        self._clock = clock
        self._fresh = fresh
        self._keys: tuple[VerificationKey, ...] = ()
        self._loaded: dt.datetime | None = None
        self._tried: dt.datetime | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._patient_until = 0.0

    @abc.abstractmethod
    async def _load(self) -> tuple[VerificationKey, ...]:
        """Return the keys as they are now; at least one."""

    async def verify(self, token: str) -> dict[str, Any]:
        """Verify a token with these keys and return its claims.

        Raises:
            FormatError: not a JWT.
            AuthenticationError: none of the keys signed it.
            UnreachableError: the keys could not be fetched.
        """
        jwt.header_of(token)  # do not ask anybody because of nonsense
        keys = await self._current()
        try:
            return jwk.verify_with_any(keys, token)
        except AuthenticationError:
            # The issuer may have a new key.
            renewed = await self._current(renew=True)
            if renewed == keys:
                raise
            return jwk.verify_with_any(renewed, token)

    async def _current(self, *, renew: bool = False) -> tuple[VerificationKey, ...]:
        now = self._clock()
        if renew or _past(self._loaded, self._fresh, now):
            await self._renewed(now)
        if _past(self._loaded, KEPT, now):
            # Where they are is not a stranger's business.
            raise UnreachableError(
                "the issuer's keys cannot be fetched",
                hint="the KBS's log says why; it tries again by itself",
            )
        return self._keys

    async def _renewed(self, now: dt.datetime) -> None:
        """Wait, but not for long, for a renewal that all who want one share."""
        loop = asyncio.get_running_loop()
        if self._renewal is None and _past(self._tried, PAUSE, now):
            self._tried = now
            self._renewal = asyncio.create_task(self._renew(now))
            self._patient_until = loop.time() + PATIENCE_SECONDS
        if self._renewal is not None:
            left = self._patient_until - loop.time()
            await asyncio.wait({self._renewal}, timeout=max(0, left))

    async def _renew(self, now: dt.datetime) -> None:
        try:
            self._keys, self._loaded = await self._load(), now
        except CocosError as error:
            _log.warning("keys.not-loaded", place=self.place, error=error.message)
        finally:
            self._renewal = None


class KeySet(FollowedKeys):
    """The keys at one place.

    Args:
        place: Path of a file, ``file://`` or ``https://`` URL. For a JWK set the URL may also
            be an OpenID issuer: its discovery document names the set.
        parse: :func:`parse_pem` or :func:`cocos.crypto.jwk.parse_set`.
        clock: Decides how old keys are.
        transport: Instead of the network.

    Raises:
        ConfigError: another kind of URL, or a file without keys.
    """

    def __init__(
        self,
        place: str,
        parse: Parse,
        *,
        clock: Clock,
        transport: Transport | None = None,
    ) -> None:
        super().__init__(place, clock=clock)
        self._parse = parse
        self._transport = transport
        self._file = _local(place)
        if self._file is not None:
            self._keys, self._loaded = self._read(self._file), clock()

    async def _load(self) -> tuple[VerificationKey, ...]:
        if self._file is not None:
            return await asyncio.to_thread(self._read, self._file)
        keys: tuple[VerificationKey, ...] = ()
        with contextlib.suppress(FormatError):
            keys = self._parse(await self._get(self.place), self.place)
        if not keys and self._parse is jwk.parse_set:
            keys = await self._discovered()
        if not keys:
            raise ProtocolError(f"there are no keys at {self.place}")
        return keys

    def _read(self, file: Path) -> tuple[VerificationKey, ...]:
        try:
            keys = self._parse(read_file(file, "the issuer's keys", limit=_LIMIT), str(file))
        except FormatError as error:
            raise ConfigError(error.message, hint=error.hint) from error
        if not keys:
            raise ConfigError(f"{file} holds no key that verifies signatures")
        return keys

    async def _discovered(self) -> tuple[VerificationKey, ...]:
        """Find the set by OpenID Connect Discovery 1.0 §4."""
        document = await self._get(self.place.rstrip("/") + _DISCOVERY)
        try:
            named: _Discovery = json.decode(document, _Discovery, "the discovery document")
            return jwk.parse_set(await self._get(named.jwks_uri), named.jwks_uri)
        except FormatError as error:
            raise ProtocolError(f"there are no keys at {self.place}: {error.message}") from error

    async def _get(self, url: str) -> bytes:
        if _local(url) is not None:
            raise ProtocolError(f"the issuer at {self.place} names a file of this machine")
        parts = urlsplit(url)
        route = parts.path.lstrip("/") + (f"?{parts.query}" if parts.query else "")
        server = HttpServer(
            f"https://{parts.netloc}",
            what="the issuer",
            user_agent="cocos-kbs/0.1.0",
            transport=self._transport,
        )
        async with server:
            answer = await server.request("GET", route, headers={"Accept": "application/json"})
        return answer.body if answer.status == _OK else b""


def _past(moment: dt.datetime | None, span: dt.timedelta, now: dt.datetime) -> bool:
    """Whether a moment is further away than a span; a clock may have been set back."""
    return moment is None or abs(now - moment) >= span


def _local(place: str) -> Path | None:
    """Return the file that a place is, or None for an ``https://`` URL."""
    if "://" not in place:
        return Path(place)
    parts = urlsplit(place)
    if parts.scheme == "file" and parts.netloc in {"", "localhost"}:
        return Path(unquote(parts.path))
    if parts.scheme == "https" and parts.hostname and "@" not in parts.netloc:
        return None
    raise ConfigError(
        f"keys cannot be read from a place like {parts.scheme}://",
        hint="a file, file:// or https://; keys that come over http:// could be anybody's",
    )

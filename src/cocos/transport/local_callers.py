# SPDX-License-Identifier: Apache-2.0
"""Which users of this machine a program serves that hands out secrets.

A port on loopback is open to every user. Whose process asks is looked up for each call,
before anything is done for it. A socket in the file system has its mode for that.
"""

import os
import pwd
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

import structlog

from cocos.errors import AccessDeniedError, ConfigError
from cocos.host import peers
from cocos.host.peers import Endpoint

if TYPE_CHECKING:  # guests, who serve gRPC alone, have no Starlette
    from starlette.types import Scope

ROOT = 0

_LOOPBACK = {"ipv4": "127.0.0.1", "ipv6": "::1"}

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LocalCallers:
    """The users who may ask, by number."""

    uids: frozenset[int]

    @classmethod
    def of(cls, users: Iterable[str] = ()) -> "LocalCallers":
        """Return ourselves, root, and the users of these names or numbers.

        Raises:
            ConfigError: this machine knows no such user.
        """
        return cls(frozenset({os.geteuid(), ROOT, *map(_uid, users)}))

    def check(self, peer: str, bound: str) -> None:
        """Refuse a call of another user.

        Args:
            peer: Who calls, as gRPC names it: ``ipv4:127.0.0.1:50000``, ``ipv6:%5B::1%5D:…``.
            bound: Where we listen: ``HOST:PORT`` or ``unix:/PATH``.

        Raises:
            AccessDeniedError: not one of ours, or nobody can tell.
        """
        if bound.startswith("unix:"):
            return
        kind, _, place = unquote(peer).partition(":")
        host, _, port = place.rpartition(":")
        ours, _, our_port = bound.rpartition(":")
        if ours == "localhost":
            ours = _LOOPBACK.get(kind, "")
        self._check((host.strip("[]"), port), (ours.strip("[]"), our_port))

    def admit(self, scope: "Scope") -> None:
        """Refuse a request of another user; for :class:`cocos.transport.web.WebApp`.

        Raises:
            AccessDeniedError: as :meth:`check`.
        """
        nobody = ("", "0")
        self._check(scope.get("client") or nobody, scope.get("server") or nobody)

    def _check(self, client: tuple[str, str | int], server: tuple[str, str | int]) -> None:
        try:
            ends = [Endpoint.of(host, int(port)) for host, port in (client, server)]
            found = peers.owners(*ends)
        except ValueError:
            found = set()
        if not found:
            raise AccessDeniedError(
                "nobody can tell whose process is asking", hint="has its connection ended?"
            )
        if found <= self.uids:
            return
        others = " ".join(_name(uid) for uid in sorted(found - self.uids))
        ours = ", ".join(_name(uid) for uid in sorted(self.uids))
        _log.warning("caller.refused", user=others, serves=ours)
        raise AccessDeniedError(
            f"this program serves {ours} only, not {others}",
            hint=f"start it with --allow-user {others}, or start one of your own",
        )


def _uid(user: str) -> int:
    if user.isascii() and user.isdecimal():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError as error:
        raise ConfigError(f"this machine has no user {user!r}") from error


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)

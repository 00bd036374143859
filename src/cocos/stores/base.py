# SPDX-License-Identifier: Apache-2.0
"""The one storage interface: values under keys in namespaces, durable when a call returns."""

import abc
import datetime as dt
import enum
from typing import overload


class Namespace(enum.StrEnum):
    """What a value is; every namespace is a table of its own."""

    RESOURCE = "resource"
    RESOURCE_POLICY = "resource_policy"
    ATTESTATION_POLICY = "attestation_policy"
    REFERENCE_VALUE = "reference_value"
    SESSION = "session"
    KEY = "key"
    DENIAL = "denial"


class StaleKeyError(Exception):
    """A value was sealed with a key that is no longer current; seal it again."""


@overload
def microseconds(moment: dt.datetime) -> int: ...
@overload
def microseconds(moment: None) -> None: ...
@overload
def microseconds(moment: dt.datetime | None) -> int | None: ...
def microseconds(moment: dt.datetime | None) -> int | None:
    """Return microseconds since 1970, UTC: how stores keep when a value expires."""
    if moment is None:
        return None
    since = moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return since // dt.timedelta(microseconds=1)


class Store(abc.ABC):
    """Keeps bytes under text keys.

    Every write is atomic and durable before the call returns. A value past its
    ``expires`` is absent for every method.
    """

    @abc.abstractmethod
    async def get(self, namespace: Namespace, key: str) -> bytes | None:
        """Return the value, or None when there is none."""

    @abc.abstractmethod
    async def put(
        self, namespace: Namespace, key: str, value: bytes, *, expires: dt.datetime | None = None
    ) -> None:
        """Write the value, over an old one if there is one."""

    @abc.abstractmethod
    async def put_new(
        self, namespace: Namespace, key: str, value: bytes, *, expires: dt.datetime | None = None
    ) -> bool:
        """Write the value unless there is one; return whether it was written."""

    @abc.abstractmethod
    async def replace(self, namespace: Namespace, key: str, old: bytes, new: bytes) -> bool:
        """Write ``new`` if the value is still ``old``; return whether it was."""

    @abc.abstractmethod
    async def delete(self, namespace: Namespace, key: str) -> bool:
        """Delete the value; return whether there was one."""

    @abc.abstractmethod
    async def keys(self, namespace: Namespace, prefix: str = "") -> list[str]:
        """Return the keys that start with ``prefix``, sorted."""

    @abc.abstractmethod
    async def sweep(self) -> int:
        """Delete what has expired; return how many values that were."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Release connections."""

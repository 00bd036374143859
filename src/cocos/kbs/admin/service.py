# SPDX-License-Identifier: Apache-2.0
"""What the key broker does for administrators: resources, policies, reference values."""

import datetime as dt
from collections.abc import Sequence
from typing import Any, Final, Protocol

import structlog

from cocos._types import JsonObject
from cocos.crypto import kek
from cocos.errors import CocosError, FormatError, NotFoundError, StateError
from cocos.kbs.denials import Denial, Denials
from cocos.kbs.metrics import KbsMetrics
from cocos.kbs.resource_policy import RESOURCE, ResourcePolicy
from cocos.stores.base import Namespace, Store
from cocos.wire.kbs import protocol as kbs

_KEYS: Final = "key"

_log = structlog.get_logger(__name__)


class AppraisalRules(Protocol):
    """What an attestation service appraises by."""

    async def set_policy(self, policy_id: str, text: str) -> tuple[str, ...]:
        """Store an attestation policy; return warnings."""
        ...

    async def policy_ids(self) -> list[str]:
        """Return the ids of all policies, stored and default."""
        ...

    async def get_policy(self, policy_id: str) -> str:
        """Return the text of a policy, or raise NotFoundError."""
        ...

    async def delete_policy(self, policy_id: str) -> None:
        """Delete a stored policy, or raise NotFoundError."""
        ...

    async def register_reference_values(self, message: JsonObject) -> None:
        """Store the reference values of an RVPS message."""
        ...

    async def find_reference_value(self, name: str) -> tuple[Any, str | None]:
        """Return a reference value and, if it can be told, its tag, or raise NotFoundError."""
        ...

    async def set_reference_value(
        self, name: str, value: Any, *, expires: dt.datetime | None, new: bool, tag: str | None
    ) -> None:
        """Store one reference value; StateError if it is not new, or has another tag."""
        ...

    async def list_reference_values(self) -> Sequence[Any]:
        """Return every reference value with its name and when it expires."""
        ...

    async def delete_reference_value(self, name: str) -> None:
        """Delete a reference value, or raise NotFoundError."""
        ...


class Administration:
    """The use cases of administrators, who are admitted before."""

    def __init__(
        self,
        store: Store,
        rules: AppraisalRules,
        *,
        policy: ResourcePolicy,
        denials: Denials,
        metrics: KbsMetrics,
    ) -> None:
        self._store = store
        self._rules = rules
        self._policy = policy
        self._denials = denials
        self._metrics = metrics

    async def set_resource(self, path: kbs.ResourcePath, data: bytes, *, overwrite: bool) -> None:
        """Store a resource; a key of images, whatever its form, as its 32 bytes (ADR 0039).

        Raises:
            StateError: there is one and it may not be overwritten.
        """
        if path.type == _KEYS:
            data = _plain_key(path, data)
        if overwrite:
            await self._store.put(Namespace.RESOURCE, str(path), data)
        elif not await self._store.put_new(Namespace.RESOURCE, str(path), data):
            raise StateError(f"there is already a resource {path}")
        self._metrics.writes.inc()

    async def delete_resource(self, path: kbs.ResourcePath) -> None:
        """Delete a resource.

        Raises:
            NotFoundError: there is no such resource.
        """
        if not await self._store.delete(Namespace.RESOURCE, str(path)):
            raise NotFoundError(f"there is no resource {path}")
        self._metrics.deletes.inc()

    async def list_resources(self, prefix: str = "") -> list[str]:
        """Return the names of resources that start with ``prefix``, sorted."""
        return await self._store.keys(Namespace.RESOURCE, prefix)

    async def unbound_keys(self, most: int | None = None) -> list[str]:
        """Return the names of keys of images of which nobody said who may have them.

        That is: what has the form of such a key, under the global policy, where that lets
        every computation on a machine that is trusted.

        Args:
            most: Of how many resources to look at the content.
        """
        names = await self._store.keys(Namespace.RESOURCE)
        routes = await self._policy.unbound([RESOURCE, *name.split("/")] for name in names)
        unbound = ["/".join(route[1:]) for route in routes]
        return [name for name in unbound[:most] if await self._is_key(name)]

    async def _is_key(self, name: str) -> bool:
        try:
            kek.parse(await self._store.get(Namespace.RESOURCE, name) or b"", name)
        except CocosError:  # also one that cannot be opened: nobody gets that
            return False
        return True

    async def set_resource_policy(
        self, text: str, policy_id: str, *, overwrite: bool
    ) -> tuple[str, ...]:
        """Set a policy that decides who gets which resource; return warnings.

        Raises:
            FormatError: an impossible id, it is not Rego, or it can never allow anything.
            StateError: there is one and it may not be overwritten.
        """
        return await self._policy.set(policy_id, text, overwrite=overwrite)

    async def resource_policy_ids(self) -> list[str]:
        """Return the ids of all resource policies."""
        return await self._policy.ids()

    async def resource_policy(self, policy_id: str) -> str:
        """Return the text of a resource policy.

        Raises:
            NotFoundError: there is none of that id.
        """
        return await self._policy.text(policy_id)

    async def delete_resource_policy(self, policy_id: str) -> tuple[str, ...]:
        """Delete a stored resource policy; what is more general holds again. Return warnings.

        Raises:
            NotFoundError: none of that id is stored.
        """
        return await self._policy.remove(policy_id)

    async def set_attestation_policy(self, policy_id: str, text: str) -> tuple[str, ...]:
        """Set a policy that appraises evidence; return warnings.

        Raises:
            FormatError: it is not Rego, or can never affirm anything.
        """
        return await self._rules.set_policy(policy_id, text)

    async def attestation_policy_ids(self) -> list[str]:
        """Return the ids of all attestation policies, stored and default."""
        return await self._rules.policy_ids()

    async def attestation_policy(self, policy_id: str) -> str:
        """Return the text of an attestation policy.

        Raises:
            NotFoundError: there is none of that id.
        """
        return await self._rules.get_policy(policy_id)

    async def delete_attestation_policy(self, policy_id: str) -> None:
        """Delete a stored attestation policy; a default of that id holds again.

        Raises:
            NotFoundError: none of that id is stored.
        """
        await self._rules.delete_policy(policy_id)

    async def register_reference_values(self, message: JsonObject) -> None:
        """Store the reference values of an RVPS message.

        Raises:
            FormatError: not such a message.
        """
        await self._rules.register_reference_values(message)

    async def set_reference_value(
        self,
        name: str,
        value: Any,
        *,
        expires: dt.datetime | None,
        new: bool,
        tag: str | None,
    ) -> None:
        """Store one reference value.

        Args:
            name: Its name.
            value: JSON.
            expires: When; in a year without.
            new: Only if there is none.
            tag: Only if that of the present one is this.

        Raises:
            FormatError: an unusable name or value.
            StateError: a condition does not hold.
        """
        await self._rules.set_reference_value(name, value, expires=expires, new=new, tag=tag)

    async def find_reference_value(self, name: str) -> tuple[Any, str | None]:
        """Return a reference value and its tag, which changes with it, if that can be told.

        Raises:
            NotFoundError: there is none.
        """
        return await self._rules.find_reference_value(name)

    async def list_reference_values(self) -> Sequence[Any]:
        """Return every reference value with its name and when it expires."""
        return await self._rules.list_reference_values()

    async def delete_reference_value(self, name: str) -> None:
        """Delete a reference value.

        Raises:
            NotFoundError: there is none.
        """
        await self._rules.delete_reference_value(name)

    async def explain(self, denial_id: str) -> Denial:
        """Return why something was denied.

        Raises:
            NotFoundError: nothing was denied under that id, or it was too long ago.
        """
        return await self._denials.get(denial_id)


def _plain_key(path: kbs.ResourcePath, data: bytes) -> bytes:
    """Return the bytes of a key that stands as base64 text; anything else as it is.

    The guest components take 32 bytes only. Our own readers use the same parser, so that
    what they understand is the same key before and after, here and in an owner's folder.
    """
    try:
        key = kek.parse(data, f"the key {path}")
    except FormatError:
        return data
    if key != data:
        _log.info("kbs.key-decoded", resource=str(path), was="base64 text", bytes=len(key))
    return key

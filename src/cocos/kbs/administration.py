# SPDX-License-Identifier: Apache-2.0
"""What the key broker does for administrators: resources, policies, reference values."""

from typing import Any, Protocol

from cocos._types import JsonObject
from cocos.errors import NotFoundError, StateError
from cocos.kbs.denials import Denial, Denials
from cocos.kbs.metrics import KbsMetrics
from cocos.kbs.resource_policy import POLICY_ID, ResourcePolicy
from cocos.stores.base import Namespace, Store
from cocos.wire import kbs


class AppraisalRules(Protocol):
    """What an attestation service appraises by."""

    async def set_policy(self, policy_id: str, text: str) -> None:
        """Store an attestation policy."""
        ...

    async def register_reference_values(self, message: JsonObject) -> None:
        """Store the reference values of an RVPS message."""
        ...

    async def get_reference_value(self, name: str) -> Any:
        """Return a reference value, or raise NotFoundError."""
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

    async def set_resource(
        self, path: kbs.ResourcePath, data: bytes, *, overwrite: bool = True
    ) -> None:
        """Store a resource.

        Raises:
            StateError: there is one and it may not be overwritten.
        """
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

    async def set_resource_policy(self, text: str) -> None:
        """Set the policy that decides who gets which resource.

        Raises:
            FormatError: it is not Rego.
        """
        await self._policy.set(POLICY_ID, text)

    async def set_attestation_policy(self, policy_id: str, text: str) -> None:
        """Set a policy that appraises evidence.

        Raises:
            FormatError: it is not Rego.
        """
        await self._rules.set_policy(policy_id, text)

    async def register_reference_values(self, message: JsonObject) -> None:
        """Store the reference values of an RVPS message.

        Raises:
            FormatError: not such a message.
        """
        await self._rules.register_reference_values(message)

    async def get_reference_value(self, name: str) -> Any:
        """Return a reference value.

        Raises:
            NotFoundError: there is none.
        """
        return await self._rules.get_reference_value(name)

    async def explain(self, denial_id: str) -> Denial:
        """Return why something was denied.

        Raises:
            NotFoundError: nothing was denied under that id, or it was too long ago.
        """
        return await self._denials.get(denial_id)

# SPDX-License-Identifier: Apache-2.0
"""Attestation policies: the operator's if stored, else the default in the code."""

import asyncio
import re
from typing import Final

from cocos.errors import FormatError, NotFoundError
from cocos.host.policy_trial import try_policy
from cocos.policy import defaults
from cocos.policy.engine import Policy
from cocos.stores.base import Namespace, Store

_ID: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_\-.]{0,127}", re.ASCII)


class AttestationPolicies:
    """Stores policies under ids such as ``default_cpu`` and keeps them compiled."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._compiled: dict[str, Policy] = {}

    async def set(self, policy_id: str, text: str) -> None:
        """Store a policy over the one of the same id.

        Raises:
            FormatError: an impossible id, or a policy that does not compile or crashes
                the engine.
        """
        if not _ID.fullmatch(policy_id):
            raise FormatError(
                f"{policy_id!r} is no policy id", hint="letters, digits, _, - and . are allowed"
            )
        await try_policy(text)
        await self._store.put(Namespace.ATTESTATION_POLICY, policy_id, text.encode())

    async def delete(self, policy_id: str) -> None:
        """Delete a stored policy; a default of that id holds again.

        Raises:
            NotFoundError: none of that id is stored.
        """
        if not await self._store.delete(Namespace.ATTESTATION_POLICY, policy_id):
            raise NotFoundError(f"no attestation policy {policy_id!r} is stored")

    async def text(self, policy_id: str) -> str:
        """Return a policy's text.

        Raises:
            NotFoundError: none is stored and there is no default of that id.
        """
        stored = await self._store.get(Namespace.ATTESTATION_POLICY, policy_id)
        if stored is not None:
            return stored.decode()
        if policy_id in defaults.ATTESTATION:
            return defaults.text(policy_id)
        raise NotFoundError(f"there is no attestation policy {policy_id!r}")

    async def ids(self) -> list[str]:
        """Return the ids of all policies, stored and default, sorted."""
        stored = await self._store.keys(Namespace.ATTESTATION_POLICY)
        return sorted({*stored, *defaults.ATTESTATION})

    async def find(self, policy_id: str) -> Policy:
        """Return a policy, compiled once per text.

        Raises:
            NotFoundError: as :meth:`text`.
            FormatError: what is stored does not compile.
        """
        text = await self.text(policy_id)
        known = self._compiled.get(policy_id)
        if known is None or known.text != text:
            known = await asyncio.to_thread(Policy.compile, text)
            self._compiled[policy_id] = known
        return known

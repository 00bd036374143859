# SPDX-License-Identifier: Apache-2.0
"""Policies by id: those that an operator stored, else the defaults of the program.

Defaults are never copied into the store, so that a better one reaches old installations.
"""

import re
from collections.abc import Mapping
from typing import Final

import structlog

from cocos.errors import FormatError, NotFoundError, StateError
from cocos.policy.documents import Kind
from cocos.policy.engine import PolicyEngine
from cocos.stores.base import Namespace, Store
from cocos.stores.view import View

MAX_ID: Final = 1024

_log = structlog.get_logger(__name__)


class StoredPolicies:
    """Keeps the texts of policies; takes none that the engine refuses."""

    def __init__(
        self,
        store: Store,
        namespace: Namespace,
        engine: PolicyEngine,
        *,
        kind: Kind,
        defaults: Mapping[str, str],
        ids: re.Pattern[str],
        hint: str,
    ) -> None:
        """Make it.

        Args:
            store: Where they are kept.
            namespace: And under what.
            engine: Tries them.
            kind: What they are for.
            defaults: Id → text of what holds where nothing is stored.
            ids: What an id looks like.
            hint: Says it in words.
        """
        self._view = View(store, namespace)
        self._engine = engine
        self._kind = kind
        self._defaults = dict(defaults)
        self._ids = ids
        self._hint = hint
        self._what = namespace.value.replace("_", " ")
        self._seen: Mapping[str, bytes] | None = None
        self._texts: dict[str, str] = dict(defaults)

    async def set(self, policy_id: str, text: str, *, overwrite: bool = True) -> tuple[str, ...]:
        """Store a policy over the one of the same id.

        Returns:
            Warnings: what its author may not have meant.

        Raises:
            StateError: there is one and it may not be overwritten.
            FormatError: an impossible id, or the text is not Rego, can never allow anything,
                crashes the engine, or needs too much time or memory.
        """
        if len(policy_id) > MAX_ID or not self._ids.fullmatch(policy_id):
            raise FormatError(f"{policy_id[:64]!r} is no id of a {self._what}", hint=self._hint)
        warnings = await self._engine.check(text, self._kind)
        if overwrite:
            await self._view.put({policy_id: text.encode()})
        elif not await self._view.put_new(policy_id, text.encode()):
            raise StateError(f"there is already a {self._what} {policy_id}")
        for warning in warnings:
            _log.warning("policy.doubtful", kind=self._kind, policy=policy_id, warning=warning)
        return warnings

    async def review(self) -> None:
        """Log what is wrong with policies that are stored: an older version took them."""
        seen: set[str] = set()
        for policy_id, text in sorted((await self.texts()).items()):
            if text in seen:
                continue
            seen.add(text)
            try:
                warnings = await self._engine.check(text, self._kind)
            except FormatError as error:
                _log.error(
                    "policy.REFUSED",
                    kind=self._kind,
                    policy=policy_id,
                    why=error.message,
                    hint=error.hint,
                    meaning="it denies everything until it is mended",
                )
                continue
            for warning in warnings:
                _log.warning("policy.doubtful", kind=self._kind, policy=policy_id, warning=warning)

    async def delete(self, policy_id: str) -> None:
        """Delete a stored policy; a default of that id holds again.

        Raises:
            NotFoundError: none of that id is stored.
        """
        if not await self._view.delete(policy_id):
            raise NotFoundError(f"no {self._what} {policy_id!r} is stored")

    async def texts(self) -> Mapping[str, str]:
        """Return the text of every policy that holds, stored or default, by id."""
        stored = await self._view.read()
        if stored is not self._seen:
            texts = {policy_id: text.decode() for policy_id, text in stored.items()}
            self._texts = {**self._defaults, **texts}
            self._seen = stored
        return self._texts

    async def text(self, policy_id: str) -> str:
        """Return a policy's text.

        Raises:
            NotFoundError: none is stored and there is no default of that id.
        """
        found = (await self.texts()).get(policy_id)
        if found is None:
            raise NotFoundError(f"there is no {self._what} {policy_id!r}")
        return found

    async def ids(self) -> list[str]:
        """Return the ids of all policies, stored and default, sorted."""
        return sorted(await self.texts())

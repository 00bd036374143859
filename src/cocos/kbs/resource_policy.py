# SPDX-License-Identifier: Apache-2.0
"""The Rego policies that decide who gets which resource.

``data`` says what is asked for, ``input`` is the token's claims, the verdict is
``data.policy.allow``: anything but ``true`` denies. One policy decides: that of the
longest prefix of what is asked for, else the global one, else the default, which is not
copied into the store, so that a better default reaches old installations.

A prefix is whole segments of a route below ``/kbs/v0``, such as ``resource/default/key``,
and is also the id of its policy.
"""

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from cocos._types import JsonObject, VerifiedClaims
from cocos.errors import (
    AccessDeniedError,
    CocosError,
    Finding,
    FormatError,
    InternalError,
    NotFoundError,
)
from cocos.host.policy_trial import try_policy
from cocos.kbs.metrics import KbsMetrics
from cocos.policy.engine import Policy
from cocos.stores.base import Namespace, Store
from cocos.wire import json

POLICY_ID: Final = "resource-policy"
"""Id of the global policy, as Trustee calls it."""

MAX_ID: Final = 1024
_PREFIX: Final = re.compile(r"[a-z0-9][a-z0-9\-]*(/[A-Za-z0-9_\-][A-Za-z0-9_\-.]*)*", re.ASCII)
_VERDICT: Final = "data.policy.allow"
_SHOWN: Final = 200  # characters of a verdict that is no boolean
_HINT: Final = "the attested state of this machine does not satisfy the KBS's resource policy"


class ResourcePolicy:
    """Keeps resource policies, and asks the one that a request is for."""

    def __init__(self, store: Store, *, default: str, metrics: KbsMetrics) -> None:
        self._store = store
        self._default = default.encode()
        self._metrics = metrics
        self._compiled: dict[str, tuple[bytes, Policy]] = {}

    async def set(self, text: str, policy_id: str = POLICY_ID) -> None:
        """Store a policy over the one of the same id.

        Args:
            text: Rego of package ``policy``.
            policy_id: :data:`POLICY_ID`, or the prefix that the policy is for.

        Raises:
            FormatError: an impossible id, or the text is not Rego or crashes the engine.
        """
        if len(policy_id) > MAX_ID or not _PREFIX.fullmatch(policy_id):
            raise FormatError(
                f"{policy_id[:64]!r} is no id of a resource policy",
                hint=f"{POLICY_ID} for the global one, else what its resources' routes begin "
                "with, such as resource/default/key",
            )
        await try_policy(text)
        await self._store.put(Namespace.RESOURCE_POLICY, policy_id, text.encode())

    async def ids(self) -> list[str]:
        """Return the ids of all policies; the global one is always there."""
        stored = await self._store.keys(Namespace.RESOURCE_POLICY)
        return sorted({*stored, POLICY_ID})

    async def text(self, policy_id: str = POLICY_ID) -> str:
        """Return a policy's text: as stored, or the default for the global one.

        Raises:
            NotFoundError: there is none of that id.
        """
        stored = await self._store.get(Namespace.RESOURCE_POLICY, policy_id)
        if stored is None and policy_id == POLICY_ID:
            stored = self._default
        if stored is None:
            raise NotFoundError(f"there is no resource policy {policy_id!r}")
        return stored.decode()

    async def delete(self, policy_id: str) -> None:
        """Delete a stored policy; the next shorter prefix, or the default, holds again.

        Raises:
            NotFoundError: none of that id is stored.
        """
        if not await self._store.delete(Namespace.RESOURCE_POLICY, policy_id):
            raise NotFoundError(f"no resource policy {policy_id!r} is stored")

    async def check(
        self,
        plugin: str,
        path: Sequence[str],
        query: Mapping[str, str],
        claims: VerifiedClaims,
        findings: tuple[Finding, ...] = (),
    ) -> None:
        """Return if the policy allows it.

        Args:
            plugin: First segment of the route, such as ``resource``.
            path: The segments after it.
            query: The URL's query.
            claims: Of the token that asks.
            findings: What its appraisal found; they explain a denial.

        Raises:
            AccessDeniedError: it does not, or fails; the findings say what it was shown.
        """
        wanted = {"plugin": plugin, "resource-path": list(path), "query": dict(query)}
        self._metrics.policy_evaluations.inc()
        policy_id, verdict = await self._verdict([plugin, *path], claims, wanted)
        if verdict is True:
            self._metrics.policy_approvals.inc()
            return
        counter = (
            self._metrics.policy_violations if verdict is False else self._metrics.policy_errors
        )
        counter.inc()
        raise AccessDeniedError(
            "Access denied by policy",
            findings=(
                *_findings(policy_id, "/".join([plugin, *path]), verdict, claims),
                *findings,
            ),
            hint=_HINT,
        )

    async def _verdict(
        self, route: Sequence[str], claims: VerifiedClaims, wanted: JsonObject
    ) -> tuple[str, Any]:
        policy_id, policy = await self._find(route)
        try:
            # A policy seen for the first time is compiled for what is asked for: too long
            # to keep others waiting.
            return policy_id, await asyncio.to_thread(policy.query, _VERDICT, claims, wanted)
        except CocosError as error:
            return policy_id, f"failed: {error.message}"

    async def _find(self, route: Sequence[str]) -> tuple[str, Policy]:
        for policy_id in prefixes(route):
            text = await self._store.get(Namespace.RESOURCE_POLICY, policy_id)
            if text is None and policy_id == POLICY_ID:
                text = self._default
            if text is None:
                continue
            known = self._compiled.get(policy_id)
            if known is None or known[0] != text:
                known = text, await asyncio.to_thread(Policy.compile, text.decode())
                self._compiled[policy_id] = known
            return policy_id, known[1]
        raise InternalError("no resource policy at all")


def prefixes(route: Sequence[str]) -> Iterator[str]:
    """Yield the ids of the policies that may decide on a route, the first that exists does."""
    for length in range(len(route), 0, -1):
        yield "/".join(route[:length])
    yield POLICY_ID


def _findings(
    policy_id: str, wanted: str, verdict: object, claims: VerifiedClaims
) -> tuple[Finding, ...]:
    """Say what the policy decided on: the verdict and each submodule's appraisal."""
    own = Finding(
        "resource-policy",
        f"the policy {policy_id} does not allow {wanted}",
        actual=json.encode(verdict).decode()[:_SHOWN],
        expected="true",
    )
    submods = claims.get("submods")
    if not isinstance(submods, dict):
        return (own,)
    return (own, *(_appraisal(name, submod) for name, submod in sorted(submods.items())))


def _appraisal(name: str, submod: JsonObject) -> Finding:
    vector = submod.get("ear.trustworthiness-vector", {})
    return Finding(
        f"{name}.ear.status",
        "this is how the attestation service judged it",
        actual=f"{submod.get('ear.status')} {json.canonical(vector).decode()}",
        expected="what the resource policy asks for; by default affirming",
    )

# SPDX-License-Identifier: Apache-2.0
"""The Rego policy that decides who gets which resource.

``data`` says what is asked for, ``input`` is the token's claims, the verdict is
``data.policy.allow``: anything but ``true`` denies. Without a stored policy the default
holds; it is not copied into the store, so that a better default reaches old installations.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cocos._types import JsonObject, VerifiedClaims
from cocos.errors import AccessDeniedError, CocosError, Finding
from cocos.host.policy_trial import try_policy
from cocos.kbs.metrics import KbsMetrics
from cocos.policy.engine import Policy
from cocos.stores.base import Namespace, Store
from cocos.wire import json

POLICY_ID: Final = "resource-policy"
_VERDICT: Final = "data.policy.allow"
_SHOWN: Final = 200  # characters of a verdict that is no boolean
_HINT: Final = "the attested state of this machine does not satisfy the KBS's resource policy"


class ResourcePolicy:
    """Asks the stored policy, or the default one."""

    def __init__(self, store: Store, *, default: str, metrics: KbsMetrics) -> None:
        self._store = store
        self._default = default.encode()
        self._metrics = metrics
        self._compiled: tuple[bytes, Policy] | None = None

    async def set(self, text: str) -> None:
        """Store a policy.

        Raises:
            FormatError: it is not Rego, or crashes the engine.
        """
        await try_policy(text)
        await self._store.put(Namespace.RESOURCE_POLICY, POLICY_ID, text.encode())

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
        verdict = await self._verdict(claims, wanted)
        if verdict is True:
            self._metrics.policy_approvals.inc()
            return
        counter = (
            self._metrics.policy_violations if verdict is False else self._metrics.policy_errors
        )
        counter.inc()
        raise AccessDeniedError(
            "Access denied by policy",
            findings=(*_findings(f"{plugin}/{'/'.join(path)}", verdict, claims), *findings),
            hint=_HINT,
        )

    async def _verdict(self, claims: VerifiedClaims, wanted: JsonObject) -> Any:
        policy = await self._policy()
        try:
            # A policy seen for the first time is compiled for what is asked for: too long
            # to keep others waiting.
            return await asyncio.to_thread(policy.query, _VERDICT, claims, wanted)
        except CocosError as error:
            return f"failed: {error.message}"

    async def _policy(self) -> Policy:
        stored = await self._store.get(Namespace.RESOURCE_POLICY, POLICY_ID)
        text = self._default if stored is None else stored
        if self._compiled is not None and self._compiled[0] == text:
            return self._compiled[1]
        policy = await asyncio.to_thread(Policy.compile, text.decode())
        self._compiled = (text, policy)
        return policy


def _findings(wanted: str, verdict: object, claims: VerifiedClaims) -> tuple[Finding, ...]:
    """Say what the policy decided on: the verdict and each submodule's appraisal."""
    own = Finding(
        "resource-policy",
        f"the policy does not allow {wanted}",
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

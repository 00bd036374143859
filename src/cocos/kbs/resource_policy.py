# SPDX-License-Identifier: Apache-2.0
"""The Rego policies that decide who gets which resource.

``data`` says what is asked for, ``input`` is the token's claims, the verdict is
``data.policy.allow``: anything but ``true`` denies. One policy decides: that of the
longest prefix of what is asked for, else the global one, else the default, which is not
copied into the store, so that a better default reaches old installations. After a denial
its ``data.policy.findings`` may explain it; it changes nothing.

A prefix is whole segments of a route below ``/kbs/v0``, such as ``resource/default/key``,
and is also the id of its policy.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import structlog

from cocos._types import JsonObject, VerifiedClaims
from cocos.errors import (
    AccessDeniedError,
    CocosError,
    Finding,
    PolicyFailedError,
)
from cocos.kbs.metrics import KbsMetrics
from cocos.policy import defaults, owners
from cocos.policy.appraisal import STATUS, VECTOR, Status, explanations
from cocos.policy.documents import Kind
from cocos.policy.engine import PolicyEngine
from cocos.stores.base import Namespace, Store
from cocos.stores.policies import StoredPolicies
from cocos.wire import json
from cocos.wire.kbs.protocol import SEGMENT

RESOURCE: Final = "resource"
"""What routes to resources begin with."""
POLICY_ID: Final = "resource-policy"
"""Id of the global policy, as Trustee calls it."""

# What no route begins with would never be asked.
_IDS: Final = re.compile(rf"{POLICY_ID}|resource(/{SEGMENT}){{0,3}}", re.ASCII)
_OPEN: Final = (defaults.text(defaults.RESOURCE), defaults.ALLOW_ALL)
_VERDICT: Final = "allow"
_FINDINGS: Final = "findings"
_SHOWN: Final = 200  # characters of a verdict that is no boolean
_log = structlog.get_logger(__name__)

_HINT: Final = "the attested state of this machine does not satisfy the KBS's resource policy"
_BY_DEFAULT: Final = "what the resource policy asks for; by default affirming"
_FAILED: Final = "the KBS's resource policy fails; its operator can mend it"


class ResourcePolicy(StoredPolicies):
    """Keeps resource policies, and asks the one that a request is for."""

    def __init__(
        self, store: Store, engine: PolicyEngine, *, default: str, metrics: KbsMetrics
    ) -> None:
        super().__init__(
            store,
            Namespace.RESOURCE_POLICY,
            engine,
            kind=Kind.RESOURCE,
            defaults={POLICY_ID: default},
            ids=_IDS,
            hint=f"{POLICY_ID} for the global one, else what its resources' routes begin with, "
            "such as resource/default/key",
        )
        self._metrics = metrics

    async def check(
        self,
        plugin: str,
        path: Sequence[str],
        query: Mapping[str, str],
        claims: VerifiedClaims,
        findings: tuple[Finding, ...] = (),
        *,
        note: Callable[[str, str], None] = lambda _id, _text: None,
    ) -> None:
        """Return if the policy allows it.

        Args:
            plugin: First segment of the route, such as ``resource``.
            path: The segments after it.
            query: The URL's query.
            claims: Of the token that asks.
            findings: What its appraisal found; they explain a denial.
            note: Told the id and the text of the policy that decides.

        Raises:
            AccessDeniedError: it does not; the findings say what it was shown.
            PolicyFailedError: it fails; the findings say why.
        """
        wanted = {"plugin": plugin, "resource-path": list(path), "query": dict(query)}
        self._metrics.policy_evaluations.inc()
        texts = await self.texts()
        policy_id = _deciding(texts, [plugin, *path])
        policy = texts[policy_id]
        note(policy_id, policy)
        verdict = await self._ask(policy, _VERDICT, claims, wanted)
        if verdict is True:
            self._metrics.policy_approvals.inc()
            return
        counter = (
            self._metrics.policy_violations if verdict is False else self._metrics.policy_errors
        )
        counter.inc()
        said = explanations(await self._ask(policy, _FINDINGS, claims, wanted))
        shown = _findings(policy_id, "/".join([plugin, *path]), verdict, claims)
        found = (*said, *shown, *await self._explain(policy, claims, wanted), *findings)
        if isinstance(verdict, CocosError):
            raise PolicyFailedError("Policy engine error", findings=found, hint=_FAILED)
        raise AccessDeniedError("Access denied by policy", findings=found, hint=_HINT)

    async def remove(self, policy_id: str) -> tuple[str, ...]:
        """Delete a stored policy; what is more general, or the default, holds again.

        Returns:
            Warnings: what it protected is given to more than it was.

        Raises:
            NotFoundError: none of that id is stored.
        """
        await self.delete(policy_id)
        texts = await self.texts()
        heir = _deciding(texts, [] if policy_id == POLICY_ID else policy_id.split("/"))
        if not _is_open(texts[heir]):
            return ()
        warning = f"{heir} decides now on what {policy_id} decided on, and lets every computation"
        _log.warning("policy.loosened", policy=policy_id, warning=warning)
        return (warning,)

    async def unbound(self, routes: Iterable[Sequence[str]]) -> list[Sequence[str]]:
        """Return the routes of which nobody said who may have what is there.

        The global policy decides on them, and it is one of those that let every computation.
        """
        texts = await self.texts()
        if not _is_open(texts[POLICY_ID]):
            return []
        return [route for route in routes if _deciding(texts, route) == POLICY_ID]

    async def _ask(self, text: str, rule: str, claims: VerifiedClaims, wanted: JsonObject) -> Any:
        """Return a rule's value; the error of a policy that fails."""
        try:
            said = await self._engine.evaluate(text, [rule], claims, request=wanted)
        except CocosError as error:
            return error
        return said[rule]

    async def _explain(
        self, text: str, claims: VerifiedClaims, wanted: JsonObject
    ) -> tuple[Finding, ...]:
        """Say which statements did not hold; nothing if that fails: the denial stands."""
        try:
            found = await self._engine.explain(text, [_VERDICT], claims, request=wanted)
        except CocosError:
            return ()
        return tuple(replace(each, check="resource-policy") for each in found)


def _is_open(text: str) -> bool:
    """Whether a policy is known to let every computation on machines that are trusted."""
    return any(owners.same(text, each) for each in _OPEN)


def _deciding(texts: Mapping[str, str], route: Sequence[str]) -> str:
    return next(each for each in prefixes(route) if each in texts)


def prefixes(route: Sequence[str]) -> Iterator[str]:
    """Yield the ids of the policies that may decide on a route, the first that exists does."""
    for length in range(len(route), 0, -1):
        yield "/".join(route[:length])
    yield POLICY_ID


def _findings(
    policy_id: str, wanted: str, verdict: object, claims: VerifiedClaims
) -> tuple[Finding, ...]:
    """Say what the policy decided on: the verdict and each submodule's appraisal."""
    said = f"failed: {verdict.message}" if isinstance(verdict, CocosError) else verdict
    own = Finding(
        "resource-policy",
        f"the policy {policy_id} does not allow {wanted}",
        actual=json.encode(said).decode()[:_SHOWN],
        expected="true",
    )
    submods = claims.get("submods")
    if not isinstance(submods, dict):
        return (own,)
    return (own, *(_appraisal(name, submod) for name, submod in sorted(submods.items())))


def _appraisal(name: str, submod: object) -> Finding:
    # Whose token it is decides what is in it.
    said: Mapping[str, object] = submod if isinstance(submod, Mapping) else {}
    vector = json.canonical(said.get(VECTOR, {})).decode()
    return Finding(
        f"{name}.{STATUS}",
        "this is how the attestation service judged it",
        actual=f"{said.get(STATUS)} {vector}",
        # What is affirming did not fail: it asks for nothing more.
        expected="" if said.get(STATUS) == Status.AFFIRMING else _BY_DEFAULT,
    )

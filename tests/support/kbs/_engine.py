# SPDX-License-Identifier: Apache-2.0
"""The policy engine in the test's process, for tests that are not about its workers."""

from collections.abc import Mapping, Sequence
from typing import Any

from cocos.errors import Finding
from cocos.policy.documents import NOTHING, BaseDocuments, Kind
from cocos.policy.engine import Policy
from cocos.policy.explain import explain
from cocos.policy.review import review


class LocalEngine:
    """Evaluates without limits; test_policy_workers has the limits."""

    def __init__(self) -> None:
        self._policies: dict[str, Policy] = {}

    async def evaluate(
        self,
        text: str,
        rules: Sequence[str],
        document: Mapping[str, Any],
        *,
        base: BaseDocuments = NOTHING,
        request: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        policy = self._policies.setdefault(text, Policy(text))
        return policy.evaluate(rules, document, base=base, request=request)

    async def explain(
        self,
        text: str,
        rules: Sequence[str],
        document: Mapping[str, Any],
        *,
        base: BaseDocuments = NOTHING,
        request: Mapping[str, Any] | None = None,
    ) -> tuple[Finding, ...]:
        policy = self._policies.setdefault(text, Policy(text))
        return explain(policy, rules, document, base=base, request=request)

    async def check(self, text: str, kind: Kind) -> tuple[str, ...]:
        return review(text, kind)

# SPDX-License-Identifier: Apache-2.0
"""The policy engine in the test's process, for tests that are not about its workers."""

from collections.abc import Mapping, Sequence
from typing import Any

from cocos.errors import Finding
from cocos.policy.documents import NOTHING, BaseDocuments, Kind
from cocos.policy.engine import Policy
from cocos.policy.explain import explain
from cocos.policy.review import review

# For ever, and not a key broker's own: an engine must end in the thread that made it, and a
# collector may come round in the one of a database.
_POLICIES: dict[str, Policy] = {}


class LocalEngine:
    """Evaluates without limits; test_policy_workers has the limits."""

    async def evaluate(
        self,
        text: str,
        rules: Sequence[str],
        document: Mapping[str, Any],
        *,
        base: BaseDocuments = NOTHING,
        request: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        policy = _policy(text)
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
        policy = _policy(text)
        return explain(policy, rules, document, base=base, request=request)

    async def check(self, text: str, kind: Kind) -> tuple[str, ...]:
        return review(text, kind)


def _policy(text: str) -> Policy:
    if text not in _POLICIES:
        _POLICIES[text] = Policy(text)
    return _POLICIES[text]

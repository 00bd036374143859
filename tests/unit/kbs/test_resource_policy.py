# SPDX-License-Identifier: Apache-2.0
"""Which resource policy decides on what."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from _engine import LocalEngine

from cocos._types import VerifiedClaims
from cocos.errors import AccessDeniedError, FormatError, NotFoundError
from cocos.kbs.metrics import KbsMetrics
from cocos.kbs.resource_policy import POLICY_ID, ResourcePolicy, prefixes
from cocos.stores.sql import SqlStore

DEFAULT = "package policy\ndefault allow := false\n"
ALLOW = "package policy\nallow := true\n"
DENY = "package policy\nallow := false\n"
CLAIMS = VerifiedClaims({"submods": {}})


@pytest.fixture
async def policy(tmp_path: Path) -> AsyncIterator[ResourcePolicy]:
    store = await SqlStore.open(f"sqlite:///{tmp_path}/store.sqlite3")
    yield ResourcePolicy(store, LocalEngine(), default=DEFAULT, metrics=KbsMetrics())
    await store.close()


async def allowed(policy: ResourcePolicy, path: str, plugin: str = "resource") -> bool:
    try:
        await policy.check(plugin, path.split("/"), {}, CLAIMS)
    except AccessDeniedError:
        return False
    return True


async def test_longest_prefix_decides(policy: ResourcePolicy) -> None:
    assert not await allowed(policy, "default/key/1")
    await policy.set(POLICY_ID, ALLOW)
    await policy.set("resource/default/key", DENY)
    await policy.set("resource/default/key/1", ALLOW)
    assert await allowed(policy, "other/key/1")
    assert await allowed(policy, "default/other/1")
    assert not await allowed(policy, "default/key/2")
    assert await allowed(policy, "default/key/1")
    # A policy that says no is final: the global one is not asked.
    await policy.set("resource/default/key/1", DENY)
    assert not await allowed(policy, "default/key/1")


async def test_prefixes_are_whole_segments(policy: ResourcePolicy) -> None:
    await policy.set("resource/default/key", ALLOW)
    assert await allowed(policy, "default/key/1")
    assert not await allowed(policy, "default/key2/1")
    assert not await allowed(policy, "default/ke/1")
    assert not await allowed(policy, "Default/key/1")
    assert not await allowed(policy, "default/key/1", plugin="other")


async def test_policies_by_id(policy: ResourcePolicy) -> None:
    assert await policy.ids() == [POLICY_ID]
    assert await policy.text(POLICY_ID) == DEFAULT
    with pytest.raises(NotFoundError):
        await policy.delete(POLICY_ID)
    await policy.set("resource/a", ALLOW)
    await policy.set(POLICY_ID, DENY)
    assert await policy.ids() == ["resource-policy", "resource/a"]
    assert await policy.text("resource/a") == ALLOW
    assert await policy.text(POLICY_ID) == DENY
    with pytest.raises(NotFoundError):
        await policy.text("resource/b")
    await policy.delete("resource/a")
    assert not await allowed(policy, "a/b/c")
    await policy.delete(POLICY_ID)
    assert await policy.text(POLICY_ID) == DEFAULT
    with pytest.raises(NotFoundError):
        await policy.delete("resource/a")


IMPOSSIBLE = """
default/key foo/bar resources resource-policy/a attestation-policy resource/a/b/c/d
/ resource/ /resource resource//a resource/../a resource/.a resource/a* R/a resource/ä
"""


@pytest.mark.parametrize(
    "policy_id", ["", "a b", "resource/a\n", f"resource/{'a' * 2000}", *IMPOSSIBLE.split()]
)
async def test_impossible_ids(policy: ResourcePolicy, policy_id: str) -> None:
    with pytest.raises(FormatError, match="no id") as caught:
        await policy.set(policy_id, ALLOW)
    assert "such as resource/default/key" in (caught.value.hint or "")


async def test_denial_names_the_policy(policy: ResourcePolicy) -> None:
    await policy.set("resource/a", DENY)
    with pytest.raises(AccessDeniedError) as caught:
        await policy.check("resource", ["a", "b", "c"], {}, CLAIMS)
    assert "resource/a " in caught.value.findings[0].problem


def test_order_of_prefixes() -> None:
    assert list(prefixes(["resource", "a", "b"])) == [
        "resource/a/b",
        "resource/a",
        "resource",
        POLICY_ID,
    ]

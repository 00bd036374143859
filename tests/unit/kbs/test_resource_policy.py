# SPDX-License-Identifier: Apache-2.0
"""Which resource policy decides on what."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cocos._types import VerifiedClaims
from cocos.errors import AccessDeniedError, FormatError, NotFoundError
from cocos.kbs import resource_policy
from cocos.kbs.metrics import KbsMetrics
from cocos.kbs.resource_policy import POLICY_ID, ResourcePolicy, prefixes
from cocos.policy.engine import Policy
from cocos.stores.sql import SqlStore

DEFAULT = "package policy\ndefault allow := false\n"
ALLOW = "package policy\nallow := true\n"
DENY = "package policy\nallow := false\n"
CLAIMS = VerifiedClaims({"submods": {}})


@pytest.fixture(autouse=True)
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile here what the service tries in a child; test_policy_trial has the child."""

    async def in_process(text: str) -> None:
        Policy.compile(text)

    monkeypatch.setattr(resource_policy, "try_policy", in_process)


@pytest.fixture
async def policy(tmp_path: Path) -> AsyncIterator[ResourcePolicy]:
    store = await SqlStore.open(f"sqlite:///{tmp_path}/store.sqlite3")
    yield ResourcePolicy(store, default=DEFAULT, metrics=KbsMetrics())
    await store.close()


async def allowed(policy: ResourcePolicy, path: str, plugin: str = "resource") -> bool:
    try:
        await policy.check(plugin, path.split("/"), {}, CLAIMS)
    except AccessDeniedError:
        return False
    return True


async def test_longest_prefix_decides(policy: ResourcePolicy) -> None:
    assert not await allowed(policy, "default/key/1")
    await policy.set(ALLOW)
    await policy.set(DENY, "resource/default/key")
    await policy.set(ALLOW, "resource/default/key/1")
    assert await allowed(policy, "other/key/1")
    assert await allowed(policy, "default/other/1")
    assert not await allowed(policy, "default/key/2")
    assert await allowed(policy, "default/key/1")
    # A policy that says no is final: the global one is not asked.
    await policy.set(DENY, "resource/default/key/1")
    assert not await allowed(policy, "default/key/1")


async def test_prefixes_are_whole_segments(policy: ResourcePolicy) -> None:
    await policy.set(ALLOW, "resource/default/key")
    assert await allowed(policy, "default/key/1")
    assert not await allowed(policy, "default/key2/1")
    assert not await allowed(policy, "default/ke/1")
    assert not await allowed(policy, "Default/key/1")
    assert not await allowed(policy, "default/key/1", plugin="other")


async def test_policies_by_id(policy: ResourcePolicy) -> None:
    assert await policy.ids() == [POLICY_ID]
    assert await policy.text() == DEFAULT
    with pytest.raises(NotFoundError):
        await policy.delete(POLICY_ID)
    await policy.set(ALLOW, "resource/a")
    await policy.set(DENY)
    assert await policy.ids() == ["resource-policy", "resource/a"]
    assert await policy.text("resource/a") == ALLOW
    assert await policy.text() == DENY
    with pytest.raises(NotFoundError):
        await policy.text("resource/b")
    await policy.delete("resource/a")
    assert not await allowed(policy, "a/b/c")
    await policy.delete(POLICY_ID)
    assert await policy.text() == DEFAULT
    with pytest.raises(NotFoundError):
        await policy.delete("resource/a")


@pytest.mark.parametrize(
    "policy_id",
    [
        *["", "/", "resource/", "/resource", "resource//a", "resource/../a", "a b", "resource/a*"],
        *["R/a", "resource/a\n", "resource/ä", "resource/" + "a" * 2000],
    ],
)
async def test_impossible_ids(policy: ResourcePolicy, policy_id: str) -> None:
    with pytest.raises(FormatError, match="no id"):
        await policy.set(ALLOW, policy_id)


async def test_denial_names_the_policy(policy: ResourcePolicy) -> None:
    await policy.set(DENY, "resource/a")
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

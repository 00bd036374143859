# SPDX-License-Identifier: Apache-2.0
"""Which resource policy decides on what."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog
from _engine import LocalEngine

from cocos._types import VerifiedClaims
from cocos.errors import (
    AccessDeniedError,
    FormatError,
    NotFoundError,
    PolicyFailedError,
    StateError,
)
from cocos.kbs.metrics import KbsMetrics
from cocos.kbs.resource_policy import POLICY_ID, ResourcePolicy, prefixes
from cocos.policy import defaults
from cocos.stores.base import Namespace
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


# A list of those who are to get nothing any more, which a resource policy never sees.
REVOKED = """package policy
default allow := false
revoked if input.ek in query_reference_value("revoked")
allow if not revoked
"""


@pytest.mark.parametrize(
    "text",
    [
        REVOKED,
        REVOKED.replace("default allow", "import data.policy as p\ndefault allow"),
        REVOKED.replace("query_reference_value(", 'data["policy"].query_reference_value('),
        # Not even reached when it is tried.
        'package policy\nallow if {\n\tinput.a == 1\n\tquery_reference_value("x") == null\n}',
    ],
)
async def test_reference_values_are_not_null_to_who_never_sees_them(
    policy: ResourcePolicy, text: str
) -> None:
    """What is always null would be on no list of revoked machines."""
    with pytest.raises(FormatError, match="query_reference_value is not available"):
        await policy.set(POLICY_ID, text)


async def test_a_policy_of_before_that_asks_for_reference_values_denies(tmp_path: Path) -> None:
    store = await SqlStore.open(f"sqlite:///{tmp_path}/store.sqlite3")
    await store.put(Namespace.RESOURCE_POLICY, POLICY_ID, REVOKED.encode())
    old = ResourcePolicy(store, LocalEngine(), default=DEFAULT, metrics=KbsMetrics())
    with pytest.raises(PolicyFailedError):
        await old.check("resource", ["a", "b", "c"], {}, CLAIMS)
    await store.close()


async def test_a_resource_policy_may_have_a_function_of_that_name(policy: ResourcePolicy) -> None:
    own = "package policy\nquery_reference_value(id) := 7\nallow if query_reference_value(1) == 7\n"
    await policy.set(POLICY_ID, own)
    assert await allowed(policy, "a/b/c")


OPEN = (defaults.text(defaults.RESOURCE), defaults.ALLOW_ALL)


@pytest.mark.parametrize("text", OPEN)
async def test_what_nobody_said_who_may_have_it(policy: ResourcePolicy, text: str) -> None:
    """A global policy that lets every computation, and none of the resource's own."""
    bound, unbound = ["resource", "a", "b", "1"], ["resource", "a", "c", "1"]
    await policy.set("resource/a/b", DENY)
    assert await policy.unbound([bound, unbound]) == [], "the global policy says who"
    await policy.set(POLICY_ID, text)
    assert await policy.unbound([bound, unbound]) == [unbound]
    await policy.set("resource", DENY)
    assert await policy.unbound([bound, unbound]) == []


async def test_what_decided_is_noted_and_counted(tmp_path: Path) -> None:
    store = await SqlStore.open(f"sqlite:///{tmp_path}/store.sqlite3")
    metrics = KbsMetrics()
    policy = ResourcePolicy(store, LocalEngine(), default=DENY, metrics=metrics)
    noted: list[tuple[str, str]] = []
    broken = 'package policy\nallow := "yes"\n'
    await policy.set("resource/a", ALLOW)
    await policy.set("resource/b", broken)
    for name, denied in (("a", False), ("b", True), ("c", True)):
        asked = policy.check(
            "resource", [name, "k", "1"], {}, CLAIMS, note=lambda *each: noted.append(each)
        )
        if denied:
            with pytest.raises(AccessDeniedError):
                await asked
        else:
            await asked
    assert noted == [("resource/a", ALLOW), ("resource/b", broken), (POLICY_ID, DENY)]
    registry = metrics.http.registry
    for counter, wanted in (("evaluations", 3), ("approvals", 1), ("violations", 1), ("errors", 1)):
        assert registry.get_sample_value(f"kbs_policy_{counter}_total") == wanted
    await store.close()


@pytest.mark.parametrize(
    "submods",
    [None, 5, [], {"cpu0": 5}, {"cpu0": None}, {"cpu0": []}, {"cpu0": {}}, {"cpu0": {"a": 1}}],
)
async def test_claims_of_any_form_are_denied(policy: ResourcePolicy, submods: object) -> None:
    """A token of another issuer has what that issuer likes in it."""
    claims = VerifiedClaims({"submods": submods})
    with pytest.raises(AccessDeniedError) as caught:
        await policy.check("resource", ["a", "b", "c"], {}, claims)
    assert caught.value.findings[0].check == "resource-policy"


@pytest.mark.parametrize(
    ("general", "warned"),
    [
        ({}, ()),
        ({POLICY_ID: defaults.text(defaults.RESOURCE)}, (POLICY_ID,)),
        ({POLICY_ID: f"# mine\n{defaults.ALLOW_ALL}"}, (POLICY_ID,)),
        ({POLICY_ID: defaults.ALLOW_ALL, "resource/default": DENY}, ()),
        ({POLICY_ID: DENY, "resource/default": defaults.ALLOW_ALL}, ("resource/default",)),
    ],
)
async def test_who_deletes_a_policy_hears_what_it_leaves_open(
    policy: ResourcePolicy, general: dict[str, str], warned: tuple[str, ...]
) -> None:
    for policy_id, text in general.items():
        await policy.set(policy_id, text)
    await policy.set("resource/default/key/1", DENY)
    said = await policy.remove("resource/default/key/1")
    assert tuple(warning.partition(" decides now")[0] for warning in said) == warned
    with pytest.raises(NotFoundError):
        await policy.remove("resource/default/key/1")


async def test_who_deletes_the_global_policy_hears_of_the_default(tmp_path: Path) -> None:
    store = await SqlStore.open(f"sqlite:///{tmp_path}/store.sqlite3")
    policy = ResourcePolicy(
        store, LocalEngine(), default=defaults.text(defaults.RESOURCE), metrics=KbsMetrics()
    )
    await policy.set(POLICY_ID, DENY)
    (said,) = await policy.remove(POLICY_ID)
    assert said.startswith("resource-policy decides now")
    await store.close()


async def test_how_long_an_id_may_be(policy: ResourcePolicy) -> None:
    longest = f"resource/{'a' * 512}/{'b' * 502}"
    assert len(longest) == 1024
    await policy.set(longest, ALLOW)
    with pytest.raises(FormatError, match="no id"):
        await policy.set(longest + "b", ALLOW)


async def test_what_is_there_is_kept_where_that_is_asked_for(policy: ResourcePolicy) -> None:
    await policy.set("resource/a", DENY, overwrite=False)
    with pytest.raises(StateError, match="already a resource policy resource/a"):
        await policy.set("resource/a", ALLOW, overwrite=False)
    assert await policy.text("resource/a") == DENY
    assert await policy.texts() is await policy.texts(), "nothing has changed"


DOUBTFUL = "package policy\ndefault allow := false\nallow if input.alow\n"


async def test_policies_of_before_are_looked_at_again(tmp_path: Path) -> None:
    """Each text once, however many keys it is for, and all of them."""
    store = await SqlStore.open(f"sqlite:///{tmp_path}/store.sqlite3")
    stored = {"a": DOUBTFUL, "b": DOUBTFUL, "c": REVOKED, "d": ALLOW, "e": DOUBTFUL + "\n"}
    for name, text in stored.items():
        await store.put(Namespace.RESOURCE_POLICY, f"resource/{name}", text.encode())
    policy = ResourcePolicy(store, LocalEngine(), default=DEFAULT, metrics=KbsMetrics())
    with structlog.testing.capture_logs() as lines:
        await policy.review()
    said = [(line["event"], line["policy"]) for line in lines if "policy" in line]
    assert [*dict.fromkeys(said)] == [
        ("policy.doubtful", "resource/a"),
        ("policy.REFUSED", "resource/c"),
        ("policy.doubtful", "resource/e"),
    ]
    await store.close()


@pytest.mark.parametrize("status", ["affirming", "warning", "contraindicated", "none"])
async def test_what_is_affirming_needs_nothing_else(policy: ResourcePolicy, status: str) -> None:
    claims = VerifiedClaims({"submods": {"cpu0": {"ear.status": status}}})
    with pytest.raises(AccessDeniedError) as caught:
        await policy.check("resource", ["a", "b", "c"], {}, claims)
    (found,) = [each for each in caught.value.findings if each.check == "cpu0.ear.status"]
    assert found.actual.split()[0] == status
    assert (found.expected == "") is (status == "affirming")

# SPDX-License-Identifier: Apache-2.0
"""A key and the policy that says who gets it, at a real KBS: both, or nothing is changed."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from _kbs import InProcessKbs, admin_pair, kbs_in_process
from _through import Through
from _trustee import URL, Trustee

from cocos.clients.kbs import KbsAdmin
from cocos.errors import AuthenticationError, StateError, UnsupportedError
from cocos.keyprovider.registration import Binding, register
from cocos.policy import owners
from cocos.policy.owners import Terms
from cocos.wire.kbs.protocol import ResourcePath

KEY = ResourcePath.parse("default/key/mine")
POLICY_ID = f"resource/{KEY}"
SECRET = bytes(range(32))
STRICT = Terms(computations=(owners.only_algorithm("a" * 64),))
BOUND = Binding(owners.write(STRICT, said="the owner"))
OPEN = owners.write(Terms(), said="anybody")


@pytest.fixture
async def kbs(tmp_path: Path) -> AsyncIterator[InProcessKbs]:
    async with kbs_in_process(tmp_path) as kbs:
        yield kbs


@pytest.fixture
async def admin(kbs: InProcessKbs) -> AsyncIterator[KbsAdmin]:
    async with kbs.admin() as admin:
        yield admin


async def test_a_key_with_a_policy_and_one_without(admin: KbsAdmin) -> None:
    general = await admin.list_resource_policies()
    other = ResourcePath.parse("default/key/other")
    await register(admin, other, SECRET, new=True, binding=None)
    assert await admin.list_resource_policies() == general
    await register(admin, KEY, SECRET, new=True, binding=BOUND)
    assert await admin.get_resource_policy(POLICY_ID) == BOUND.policy
    assert await admin.list_resource_policies() == [*general, POLICY_ID]
    assert await admin.list_resources() == [str(KEY), str(other)]


async def test_the_same_policy_again_is_not_written(kbs: InProcessKbs, admin: KbsAdmin) -> None:
    """Neither is it refused: who said it first stays in it."""
    again = Binding(owners.write(STRICT, said="the owner, another day"))
    for binding in (BOUND, again):
        await register(admin, KEY, SECRET, new=False, binding=binding)
    assert await admin.get_resource_policy(POLICY_ID) == BOUND.policy
    assert kbs.count(f"PUT /kbs/v0/resource-policy/{POLICY_ID}") == 1


@pytest.mark.parametrize("new", [False, True])
async def test_another_policy_is_replaced_only_when_asked_for(
    admin: KbsAdmin, *, new: bool
) -> None:
    await admin.set_resource_policy(BOUND.policy, POLICY_ID)
    with pytest.raises(StateError, match="has another policy for kbs:///default/key/mine"):
        await register(admin, KEY, SECRET, new=new, binding=Binding(OPEN))
    assert await admin.get_resource_policy(POLICY_ID) == BOUND.policy
    assert await admin.list_resources() == []
    await register(admin, KEY, SECRET, new=new, binding=Binding(OPEN, replace=True))
    assert await admin.get_resource_policy(POLICY_ID) == OPEN
    assert await admin.list_resources() == [str(KEY)]


@pytest.mark.parametrize("bound", [False, True])
async def test_a_new_key_changes_nothing_of_somebody_else_s_of_that_name(
    kbs: InProcessKbs, admin: KbsAdmin, *, bound: bool
) -> None:
    """The policy for it would let out theirs, which the KBS's general policy may keep."""
    await register(admin, KEY, SECRET, new=True, binding=BOUND if bound else None)
    policies = await admin.list_resource_policies()
    with pytest.raises(StateError, match="already has a key kbs:///default/key/mine"):
        await register(admin, KEY, bytes(32), new=True, binding=Binding(OPEN, replace=True))
    assert await admin.list_resource_policies() == policies
    if bound:
        assert await admin.get_resource_policy(POLICY_ID) == BOUND.policy
    with pytest.raises(StateError, match="already has a key kbs:///default/key/mine"):
        await register(admin, KEY, bytes(32), new=True, binding=None)
    # Who brings the key says that it is theirs.
    await register(admin, KEY, SECRET, new=False, binding=Binding(OPEN, replace=True))
    assert await admin.get_resource_policy(POLICY_ID) == OPEN


async def test_a_key_whose_name_only_begins_like_it(admin: KbsAdmin) -> None:
    longer = ResourcePath.parse(f"{KEY}-2")
    await register(admin, longer, SECRET, new=True, binding=None)
    await admin.set_resource_policy(BOUND.policy, POLICY_ID)
    await register(admin, KEY, SECRET, new=True, binding=Binding(OPEN, replace=True))
    assert await admin.list_resources() == [str(KEY), str(longer)]


async def test_no_key_without_the_right_to_its_policy(kbs: InProcessKbs) -> None:
    stranger, _ = admin_pair()
    async with kbs.admin(stranger) as admin:
        with pytest.raises(AuthenticationError, match="mine was not registered") as caught:
            await register(admin, KEY, SECRET, new=True, binding=BOUND)
    assert f"set the policy {POLICY_ID}" in (caught.value.hint or "")
    assert not [each for each in kbs.requests if each.startswith(("POST", "PUT"))]


@pytest.mark.parametrize("new", [False, True])
async def test_no_key_where_single_keys_have_no_policies(*, new: bool) -> None:
    """A Trustee would take the key, and give it to whoever its one policy says."""
    trustee = Trustee("0.4.0")
    async with KbsAdmin(URL, token=None, transport=Through(trustee.transport(), URL)) as admin:
        with pytest.raises(UnsupportedError, match="mine was not registered"):
            await register(admin, KEY, SECRET, new=new, binding=BOUND)
    methods = {method for method, _, _ in trustee.requests}
    assert methods <= ({"GET"} if new else {"GET", "PUT"})

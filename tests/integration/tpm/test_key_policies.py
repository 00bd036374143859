# SPDX-License-Identifier: Apache-2.0
"""Policies of single keys as ``cocos-cli encrypt`` makes them, each against real quotes.

Issue 8, B10: under the global default an attacker's manifest gets a key as the owner's
does, and so does a machine that has measured none.
"""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from _boot import ALGORITHM, CMDLINE, INIT_DATA, OTHER, boot, event_of, manifest, start
from _boot import reference_values as values_of
from _engine import LocalEngine
from _kbs import InProcessKbs
from _rcar import Handshake, denial
from _tpm import Tpm

from cocos.errors import AccessDeniedError, StateError
from cocos.keyprovider.registration import Binding, register
from cocos.policy import owners
from cocos.policy.owners import Terms
from cocos.wire.kbs.protocol import ResourcePath
from cocos.wire.manifest.computation import Computation

pytestmark = pytest.mark.integration

KEY, NEIGHBOUR = ResourcePath.parse("default/key/mine"), ResourcePath.parse("default/key/mine2")
SECRET = b"k" * 32


def computation(**changes: Any) -> Computation:
    return Computation.from_json(json.dumps(manifest(**changes)).encode())


WANTED = computation()
ATTACKERS = computation(algorithm=OTHER)
LOUD = computation(agent_config={"log_level": "debug"})
FOR_THIS = Terms(computations=(owners.only_computation(WANTED),))
FOR_ALGORITHM = Terms(computations=(owners.only_algorithm(ALGORITHM),))


def binding(terms: Terms, *, replace: bool = False) -> Binding:
    return Binding(owners.write(terms, said="a test"), replace=replace)


async def guest(kbs: InProcessKbs, tpm: Tpm) -> Handshake:
    found = await Handshake.opened(kbs, tpm, tpm.params, init_data=INIT_DATA)
    answer = await found.attest(await found.evidence(cmdline=CMDLINE))
    assert answer.status_code == 200, answer.text
    return found


async def gets(kbs: InProcessKbs, tpm: Tpm, key: ResourcePath = KEY) -> bool:
    found = await guest(kbs, tpm)
    answer = await found.get(str(key))
    if answer.status_code == 200:
        assert found.key.decrypt(answer.json()) == SECRET
        return True
    assert "resource-policy" in await denial(kbs, answer)
    return False


async def run(tpm: Tpm, *computations: Computation) -> None:
    await start(tpm)
    for each in computations:
        await tpm.measure(event_of(each))


@pytest.mark.parametrize("ran", [[], [ATTACKERS], [ATTACKERS, WANTED]], ids=len)
async def test_the_global_default_does_not_look_at_computations(
    kbs: InProcessKbs, tpm: Tpm, ran: list[Computation]
) -> None:
    await run(tpm, *ran)
    async with kbs.admin() as admin:
        await register(admin, KEY, SECRET, new=True, binding=None)
        assert await gets(kbs, tpm)  # the attack
        await register(admin, NEIGHBOUR, SECRET, new=True, binding=binding(FOR_THIS))
    assert not await gets(kbs, tpm, NEIGHBOUR)
    assert await gets(kbs, tpm)  # a policy of one key is no other key's


@pytest.mark.parametrize(
    ("ran", "this", "algorithm"),
    [
        pytest.param([WANTED], True, True, id="the computation"),
        pytest.param([], False, False, id="nothing measured"),
        pytest.param([ATTACKERS], False, False, id="an attacker's program"),
        pytest.param([computation(dataset=OTHER)], False, True, id="other data"),
        pytest.param([computation(key="a/b/c")], False, True, id="another manifest"),
        pytest.param([computation(args=["cat"])], False, False, id="with arguments"),
        pytest.param([computation(filename="x")], False, False, id="with a file's name"),
        pytest.param([LOUD], False, False, id="with its output shown"),
        pytest.param([computation(datasets=[])], False, True, id="without data"),
        pytest.param([ATTACKERS, WANTED], False, False, id="after an attacker's"),
        pytest.param([WANTED, ATTACKERS], False, False, id="and then an attacker's"),
        pytest.param([WANTED, WANTED], False, False, id="twice"),
    ],
)
async def test_who_gets_a_key(
    kbs: InProcessKbs, tpm: Tpm, ran: list[Computation], this: bool, algorithm: bool
) -> None:
    await run(tpm, *ran)
    known = owners.only_image(values_of(boot()))
    strange = owners.only_image(values_of(boot(kernel=b"another")))
    wanted: Sequence[tuple[Terms, bool]] = [
        (FOR_THIS, this),
        (FOR_ALGORITHM, algorithm),
        (Terms((known,), FOR_THIS.computations), this),
        (Terms((strange,), FOR_THIS.computations), False),
        (Terms((strange, known)), True),
        (Terms((strange,)), False),
        (Terms(), True),
    ]
    async with kbs.admin() as admin:
        for number, (terms, allowed) in enumerate(wanted):
            key = ResourcePath("default", "key", f"k{number}")
            await register(admin, key, SECRET, new=True, binding=binding(terms))
            assert await gets(kbs, tpm, key) is allowed, terms


async def test_a_denial_is_explained(kbs: InProcessKbs, tpm: Tpm) -> None:
    await run(tpm, ATTACKERS)
    strange = owners.only_image(values_of(boot(kernel=b"another")))
    async with kbs.admin() as admin:
        terms = Terms((strange,), FOR_THIS.computations)
        await register(admin, KEY, SECRET, new=True, binding=binding(terms))
    findings = await denial(kbs, await (await guest(kbs, tpm)).get(str(KEY)))
    ran = json.loads(findings["tpm.computations"]["actual"])
    assert [each["manifest_digest"] for each in ran] == [ATTACKERS.digest().hex()]
    assert WANTED.digest().hex() in findings["tpm.computations"]["expected"]
    assert json.loads(findings["tpm.image"]["actual"])["pcr11"] == values_of(boot())["tpm_pcr11"][0]
    assert strange["pcr11"][0] in findings["tpm.image"]["expected"]


async def test_one_of_several_computations(kbs: InProcessKbs, tpm: Tpm) -> None:
    await run(tpm, WANTED)
    both = tuple(owners.only_computation(each) for each in (ATTACKERS, WANTED))
    async with kbs.admin() as admin:
        await register(admin, KEY, SECRET, new=True, binding=binding(Terms(computations=both)))
    assert await gets(kbs, tpm)


ROUTES = [
    *("default/key/%6dine", "default%2Fkey%2Fmine", "default/key%2fmine", "default/key/mine?"),
    *("default/key/mine?plugin=resource", "default/key/mine?resource-path=x"),
]
STRANGE = [
    *("/default/key/mine", "default//key/mine", "default/key/mine/", "default/key/./mine"),
    *("default/key/x/../mine", "Default/key/mine", "default/key/mine%00", "default/key/mine%20"),
    *("default/key/mine;x", "default/key/mine%23", "default/key/%EF%BD%8Dine", "%2e/key/mine"),
]


@pytest.mark.parametrize("bearer", [False, True], ids=["session", "token"])
async def test_no_other_route_leads_to_a_key(kbs: InProcessKbs, tpm: Tpm, bearer: bool) -> None:
    """However its name is written, and whoever asks: the policy of the key decides."""
    await run(tpm, ATTACKERS)
    async with kbs.admin() as admin:
        await register(admin, KEY, SECRET, new=True, binding=binding(FOR_THIS))
    found = await guest(kbs, tpm)
    token = found.token if bearer else None
    for route in (*ROUTES, *STRANGE):
        answer = await found.get(route, token=token)
        assert answer.status_code in ({403} if route in ROUTES else {400, 403, 404}), route
        assert b"ciphertext" not in answer.content
    headers = {"Authorization": f"Bearer {found.token}"}
    for method, path in [
        ("HEAD", f"resource/{KEY}"),
        ("OPTIONS", f"resource/{KEY}"),
        ("GET", f"resource/resource/{KEY}"),
        ("GET", f"secret/{KEY}"),
        ("GET", f"external/{KEY}"),
        ("GET", f"resource-policy/resource/{KEY}"),
    ]:
        answer = await found._http.request(method, f"/kbs/v0/{path}", headers=headers)
        assert answer.status_code >= 400, (method, path)


async def test_prefixes_are_whole_segments(kbs: InProcessKbs, tpm: Tpm) -> None:
    await run(tpm, ATTACKERS)
    async with kbs.admin() as admin:
        for key in (KEY, NEIGHBOUR):
            await register(admin, key, SECRET, new=True, binding=None)
        await admin.set_resource_policy(owners.write(FOR_THIS, said="x"), f"resource/{KEY}")
        assert not await gets(kbs, tpm)
        assert await gets(kbs, tpm, NEIGHBOUR)
        # The owner's word outlives what somebody says of everything around it.
        await admin.set_resource_policy(owners.write(Terms(), said="x"), "resource/default/key")
        await admin.set_resource_policy(owners.write(Terms(), said="x"))
        assert not await gets(kbs, tpm)


async def test_who_asked_before_the_policy_does_not_get_what_came_after_it(
    kbs: InProcessKbs, tpm: Tpm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request under the global default is being decided when policy and key arrive."""
    await run(tpm, ATTACKERS)
    found = await guest(kbs, tpm)
    evaluate, said = LocalEngine.evaluate, list[Any]()

    async def meanwhile(*args: Any, **more: Any) -> dict[str, Any]:
        verdict = await evaluate(*args, **more)
        if not said:
            said.append(verdict)
            async with kbs.admin() as admin:
                await register(admin, KEY, SECRET, new=True, binding=binding(FOR_THIS))
        return verdict

    monkeypatch.setattr(LocalEngine, "evaluate", meanwhile)
    answer = await found.get(str(KEY))
    assert said == [{"allow": True}]
    assert answer.status_code == 404, answer.text


async def test_a_policy_is_never_loosened_unasked(kbs: InProcessKbs, tpm: Tpm) -> None:
    await run(tpm, ATTACKERS)
    async with kbs.admin() as admin:
        await register(admin, KEY, SECRET, new=True, binding=binding(FOR_THIS))
        # Again, and said in other words: nothing changes.
        again = Binding(owners.write(FOR_THIS, said="the same owner, another day"))
        await register(admin, KEY, SECRET, new=False, binding=again)
        assert "a test" in await admin.get_resource_policy(f"resource/{KEY}")
        for new in (False, True):
            with pytest.raises(StateError, match="another policy"):
                await register(admin, KEY, b"x" * 32, new=new, binding=binding(Terms()))
        # Somebody else's new key of that name: their word does not replace the owner's.
        with pytest.raises(StateError, match="already"):
            await register(admin, KEY, b"x" * 32, new=True, binding=binding(Terms(), replace=True))
        assert not await gets(kbs, tpm)
        await register(admin, KEY, SECRET, new=False, binding=binding(Terms(), replace=True))
        assert await gets(kbs, tpm)


async def test_a_crash_between_policy_and_key_leaves_no_key(
    kbs: InProcessKbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    async with kbs.admin() as admin:

        async def crash(*_args: object, **_more: object) -> None:
            seen.extend(await admin.list_resource_policies())
            raise AccessDeniedError("the line is cut")

        monkeypatch.setattr(admin, "set_resource", crash)
        with pytest.raises(AccessDeniedError):
            await register(admin, KEY, SECRET, new=True, binding=binding(FOR_THIS))
        assert f"resource/{KEY}" in seen
        assert str(KEY) not in await admin.list_resources()

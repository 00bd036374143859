# SPDX-License-Identifier: Apache-2.0
"""Policies that would take a server down end a worker, and nothing else."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cocos.errors import ConfigError, FormatError
from cocos.host.policies import _worker as worker
from cocos.host.policies import workers as policy_workers
from cocos.host.policies.workers import MAX_DELAYED, PolicyWorkers
from cocos.policy import defaults
from cocos.policy.documents import NONE_REGISTERED, NOTHING, BaseDocuments, Kind

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

GOOD = "package policy\nallow := data.plugin\ntrust_claims := data.a\n"
ASKS = 'package policy\ntrust_claims := query_reference_value("a")\n'
RULE = "package policy\nimport rego.v1\nallow := 1 if not input.hurt\n"
ENDLESS = (
    f"{RULE}x := numbers.range(1, 3000)\n"
    "allow := 2 if { input.hurt; count([1 | some a in x; some b in x; some c in x]) == 0 }\n"
)
HUGE = f"{RULE}allow := [x | some x in numbers.range(1, 100000000)] if input.hurt\n"
CALLS = "".join(f"f{i}(x) := f{i + 1}([x])\n" for i in range(6000))
DEEP = f"{RULE}{CALLS}f6000(x) := x\nallow := f0(1) if input.hurt\n"
WIDE = f'{RULE}allow := sprintf("%1000000000d", [1]) if input.hurt\n'
TEXTS = "".join(f'a{i + 1} := concat("", [a{i}, a{i}])\n' for i in range(40))
DOUBLING = f'{RULE}a0 := "aaaaaaaaaaaaaaaa" if input.hurt\n{TEXTS}allow := count(a40)\n'
NUMBERS = "".join(f"a{i + 1} := a{i} * a{i}\n" for i in range(30))
BIGNUM = f"{RULE}a0 := 99999999999999999999 if input.hurt\n{NUMBERS}allow := a30 if input.hurt\n"
LONG = f"{RULE}allow := [x | some x in numbers.range(1, 200000)] if input.hurt\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def workers() -> AsyncIterator[PolicyWorkers]:
    async with PolicyWorkers(1) as made:
        yield made


async def test_evaluation(workers: PolicyWorkers) -> None:
    for number in range(3):
        said = await workers.evaluate(
            GOOD,
            ["allow", "trust_claims", "nothing"],
            {"ä": [1, 2**64 - 1, 1.5, None, "\u2028"]},
            base=BaseDocuments.of(a=[number]),
            request={"plugin": f"p{number}"},
        )
        assert said == {"allow": f"p{number}", "trust_claims": [number], "nothing": None}


async def test_the_same_question_again(workers: PolicyWorkers) -> None:
    for claim, plugin in (("a", "x"), ("a", "x"), ("b", "x"), ("a", "y"), ("a", "x")):
        text = "package policy\nallow := [data.plugin, input.claim]\n"
        said = await workers.evaluate(text, ["allow"], {"claim": claim}, request={"plugin": plugin})
        assert said == {"allow": [plugin, claim]}
    assert await workers.evaluate(
        'package policy\nallow := "other"\n', ["allow"], {"claim": "a"}, request={"plugin": "x"}
    ) == {"allow": "other"}


@pytest.mark.parametrize(
    ("text", "seconds", "evaluations"),
    [
        (GOOD, 3600, 1),
        (GOOD, 0, 2),
        ("package policy\nallow := [x | some x in numbers.range(1, 9000)]\n", 3600, 2),
    ],
    ids=["remembered", "too old", "too large"],
)
async def test_what_is_remembered(
    monkeypatch: pytest.MonkeyPatch, text: str, seconds: float, evaluations: int
) -> None:
    asked, ask = [], policy_workers._Child.ask

    async def counted(child: Any, job: Any) -> Any:
        asked.append(job)
        return await ask(child, job)

    monkeypatch.setattr(policy_workers._Child, "ask", counted)
    monkeypatch.setattr(policy_workers, "REMEMBERED_SECONDS", seconds)
    async with PolicyWorkers(1) as made:
        said = [await made.evaluate(text, ["allow"], {}, request={"plugin": 1}) for _ in range(2)]
    assert said[0] == said[1]
    assert len(asked) == evaluations


async def test_more_policies_than_a_worker_keeps(workers: PolicyWorkers) -> None:
    texts = [f"package policy\nallow := {number}\n" for number in range(worker.KEPT + 2)]
    for _ in range(2):
        for number, text in enumerate(texts):
            assert await workers.evaluate(text, ["allow"], {}) == {"allow": number}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (ENDLESS, "processor time"),
        (HUGE, "MiB|processor time"),
        (DEEP, "processor time|crashes|refuses"),
        (WIDE, "processor time|crashes"),
        (DOUBLING, "processor time|crashes"),
        (BIGNUM, "processor time"),
        (LONG, "result is larger|processor time|MiB"),
    ],
    ids=["endless", "huge", "deep", "wide", "doubling", "bignum", "long"],
)
async def test_hostile_policies(workers: PolicyWorkers, text: str, reason: str) -> None:
    # They behave when an administrator shows them.
    await workers.check(text, Kind.RESOURCE)
    with pytest.raises(ConfigError, match=reason):
        await workers.evaluate(text, ["allow"], {"hurt": True})
    # Nobody else notices, and the policy works again where it does not hurt.
    assert await workers.evaluate(GOOD, ["allow"], {}, request={"plugin": 1}) == {"allow": 1}
    assert await workers.evaluate(text, ["allow"], {}) == {"allow": 1}


async def test_a_policy_that_breaks_workers_does_not_keep_others_waiting(
    workers: PolicyWorkers,
) -> None:
    with pytest.raises(ConfigError):
        await workers.evaluate(ENDLESS, ["allow"], {"hurt": True})
    hurting = [
        asyncio.create_task(workers.evaluate(ENDLESS, ["allow"], {"hurt": True})) for _ in range(3)
    ]
    await asyncio.sleep(0)
    for _ in range(20):
        await workers.evaluate(GOOD, ["allow"], {}, request={})
    assert not hurting[-1].done()
    for task in hurting:
        task.cancel()
    await asyncio.wait(hurting)


async def test_no_endless_queue_for_a_policy_that_breaks_workers(workers: PolicyWorkers) -> None:
    with pytest.raises(ConfigError):
        await workers.evaluate(ENDLESS, ["allow"], {"hurt": True})
    tasks = [
        asyncio.create_task(workers.evaluate(ENDLESS, ["allow"], {}))
        for _ in range(MAX_DELAYED + 8)
    ]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    refused = [result for result in results if isinstance(result, ConfigError)]
    assert refused
    assert all("too many" in error.message for error in refused)
    assert {"allow": 1} in results


async def test_a_caller_that_gives_up_costs_no_answer(workers: PolicyWorkers) -> None:
    task = asyncio.create_task(workers.evaluate(GOOD, ["allow"], {}, request={"plugin": "x"}))
    await asyncio.sleep(0)
    task.cancel()
    said = await workers.evaluate(GOOD, ["allow"], {}, request={"plugin": "y"})
    assert said == {"allow": "y"}


def children() -> str:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii")


def environment(pid: str) -> str:
    return Path(f"/proc/{pid}/environ").read_text("ascii")


async def test_a_worker_that_has_grown_is_replaced(workers: PolicyWorkers) -> None:
    before = children()
    for number in range(8):
        base = BaseDocuments.of({"large": "x" * (worker.MEMORY_BYTES // 20), "a": number})
        said = await workers.evaluate(ASKS, ["trust_claims"], {}, base=base)
        assert said == {"trust_claims": number}
    assert children() != before


@pytest.mark.parametrize(
    ("document", "message"),
    [({"a": float("nan")}, "not plain JSON"), ({"a": [0] * 20_000}, "more than 16384 values")],
)
async def test_documents(workers: PolicyWorkers, document: object, message: str) -> None:
    assert isinstance(document, dict)
    with pytest.raises(FormatError, match=message):
        await workers.evaluate(GOOD, ["allow"], document)


async def test_code_in_the_working_folder_is_not_run(
    workers: PolicyWorkers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever could write there could read every key of a KBS that was started there."""
    for name in ("resource.py", "json.py", "cocos.py"):
        (tmp_path / name).write_text("open('was-run', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    await workers.check(defaults.text(defaults.RESOURCE), Kind.RESOURCE)
    assert not (tmp_path / "was-run").exists()


async def test_a_worker_gets_nothing_of_our_environment(
    workers: PolicyWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@proxy.test")
    before = children().split()
    async with PolicyWorkers(1) as more:
        await more.evaluate(GOOD, ["allow"], {})
        (started,) = set(children().split()) - set(before)
        assert environment(started) == "LC_ALL=C.UTF-8\0"


@pytest.mark.parametrize("name", [defaults.RESOURCE, *defaults.ATTESTATION])
async def test_defaults_pass(workers: PolicyWorkers, name: str) -> None:
    kind = Kind.RESOURCE if name == defaults.RESOURCE else Kind.ATTESTATION
    assert await workers.check(defaults.text(name), kind) == ()


async def test_reference_values_on_their_way_to_a_worker(workers: PolicyWorkers) -> None:
    async def asked(base: BaseDocuments) -> Any:
        return await workers.evaluate(ASKS, ["trust_claims"], {}, base=base)

    assert await asked(BaseDocuments.of({"a": [1]})) == {"trust_claims": [1]}
    assert await asked(NONE_REGISTERED) == {"trust_claims": None}
    with pytest.raises(ConfigError, match="the reference value a has expired"):
        await asked(BaseDocuments.of({}, lapsed=["a"]))
    with pytest.raises(ConfigError, match="not available to this policy"):
        await asked(NOTHING)
    await workers.check(ASKS, Kind.ATTESTATION)
    with pytest.raises(FormatError, match="line 2: query_reference_value is not available"):
        await workers.check(ASKS + "allow := true\n", Kind.RESOURCE)


@pytest.mark.parametrize(
    "text",
    [
        "package policy\ndefault allow := 1\ndefault allow := 2",
        "package policy\n" + "".join(f"r{i} := r{i + 1}\n" for i in range(9000)) + "allow := r0",
        "package policy\nimport data\nallow := 1",
        "package policy\nx := [1 | some a in numbers.range(1, 100000000)]\nallow := x",
        ENDLESS.replace("input.hurt; ", ""),
    ],
)
async def test_refused_before_it_is_stored(workers: PolicyWorkers, text: str) -> None:
    with pytest.raises(FormatError, match=r"refused|compile|given twice"):
        await workers.check(text, Kind.RESOURCE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("package policy\nallow if {", "line 2"),
        ("package policy\nallow := opa.runtime()", r"line 2: opa\.runtime"),
        ("package policy\nallow := \ud800", "not text"),
    ],
)
async def test_message_comes_through(workers: PolicyWorkers, text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        await workers.check(text, Kind.RESOURCE)


UNBOUND = "package policy\ndefault allow := false\nf(x) if { some i; i > 2 }\nallow if not f(1)\n"


async def test_a_variable_that_nothing_binds_denies_when_set_and_when_evaluated(
    workers: PolicyWorkers,
) -> None:
    """Also in a policy that was stored before anybody looked."""
    for kind in Kind:
        with pytest.raises(FormatError, match="line 3: var i is unsafe"):
            await workers.check(UNBOUND, kind)
    for _ in range(2):
        with pytest.raises(FormatError, match="line 3: var i is unsafe"):
            await workers.evaluate(UNBOUND, ["allow"], {})
    with pytest.raises(FormatError, match="line 3: var i is unsafe"):
        await workers.explain(UNBOUND, ["allow"], {})

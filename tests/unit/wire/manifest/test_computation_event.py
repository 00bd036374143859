# SPDX-License-Identifier: Apache-2.0
"""What is measured of a computation: everything that decides about its run, each by a digest."""

import base64
import dataclasses
import hashlib
import json
from typing import Any

import pytest
from _boot import ALGORITHM, DATASET, OTHER, manifest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cocos.errors import FormatError
from cocos.wire.manifest.computation import Computation
from cocos.wire.manifest.event import ComputationEvent, consumers_digest, digest_of_part
from cocos.wire.manifest.parts import AgentConfig, Algorithm, Dataset, Source

CONSUMER = ec.generate_private_key(ec.SECP256R1()).public_key()
DER = CONSUMER.public_bytes(
    serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
)
CONSUMERS = [{"user_key": base64.b64encode(DER).decode()}]


def computation(**changes: Any) -> Computation:
    return Computation.from_json(json.dumps(manifest(**changes)).encode())


def event(of: Computation, algorithm: str = ALGORITHM) -> ComputationEvent:
    return of.event(algorithm, [DATASET], of.result_consumers)


PLAIN = computation()


def test_content_and_claims() -> None:
    made = event(PLAIN)
    domain, operation, content = made.measured()
    assert (domain, operation) == ("cocos", "computation")
    assert json.loads(content) == {
        "algorithm": ALGORITHM,
        "arguments": PLAIN.arguments_digest().hex(),
        "consumers": PLAIN.consumers_digest().hex(),
        "datasets": [DATASET],
        "environment": PLAIN.environment_digest().hex(),
        "kbs": list(PLAIN.kbs()),
        "manifest": PLAIN.digest().hex(),
    }
    assert list(json.loads(content)) == sorted(json.loads(content))
    assert not any(char.isspace() for char in content)
    assert ComputationEvent.parse(content) == made
    assert set(made.claims()) == {
        "manifest_digest",
        "algorithm_digest",
        "dataset_digests",
        "arguments_digest",
        "environment_digest",
        "consumers_digest",
        "kbs",
    }


def test_digests_as_an_owner_could_work_them_out_by_hand() -> None:
    text = '{"arguments":{"args":["-c","x"],"filenames":["f"]},"version":1}'
    told = computation(args=["-c", "x"], filename="f")
    assert told.arguments_digest() == hashlib.sha256(text.encode()).digest()
    nobody = hashlib.sha256(b'{"consumers":[],"version":1}').digest()
    assert PLAIN.consumers_digest() == nobody


CHANGES = [
    ({"args": ["cat"]}, {"arguments"}),
    ({"args": [""]}, {"arguments"}),
    ({"filename": "f"}, {"arguments"}),
    ({"result_consumers": CONSUMERS}, {"consumers"}),
    ({"agent_config": {"log_level": "debug"}}, {"environment"}),
    ({"agent_config": {"port": "1"}}, {"environment"}),
    ({"key": "a/b/c"}, set[str]()),
    ({"kbs_url": "http://other:8080"}, {"kbs"}),
    ({"kbs_url": f"http://10.0.2.2:8080#token-key={'A' * 43}"}, {"kbs"}),
    ({"name": "n"}, set[str]()),
    ({"algorithm": ""}, set[str]()),
]


@pytest.mark.parametrize(("change", "parts"), CHANGES)
def test_what_changes_what(change: dict[str, Any], parts: set[str]) -> None:
    before, after = event(PLAIN), event(computation(**change))
    members = ComputationEvent.__struct_fields__
    changed = {name for name in members if getattr(before, name) != getattr(after, name)}
    assert changed == parts | {"manifest"}


def test_every_member_of_a_manifest_has_its_place() -> None:
    """Whoever adds a member decides which digest it belongs to, beside the manifest's."""
    image = {"source", "hash"}  # what it resolves to
    shown = {"user_key"}  # of no effect
    for part, placed in {
        Algorithm: image | shown | {"kind", "args"},
        Dataset: image | shown | {"filename", "decompress"},  # refused unless it is false
        Source: {"type", "url", "encrypted", "key", "kbs"},
        Computation: {
            *{"id", "name", "description"},  # of no effect
            *{"algorithm", "datasets", "result_consumers", "agent_config"},
        },
    }.items():
        assert {each.name for each in dataclasses.fields(part)} == placed
    before = PLAIN.environment_digest()
    for each in dataclasses.fields(AgentConfig):
        if each.name != "attested_tls":
            value = "debug" if each.name == "log_level" else "x"
            after = computation(agent_config={each.name: value})
            assert after.environment_digest() != before, each.name


def test_consumers_are_those_that_the_agent_says() -> None:
    named = computation(result_consumers=CONSUMERS)
    assert named.event(ALGORITHM, [], ()).consumers == PLAIN.consumers_digest().hex()
    assert event(named).consumers == named.consumers_digest().hex()


def test_arguments_are_kept_apart() -> None:
    forms: list[dict[str, Any]] = [
        {},
        {"args": [""]},
        {"args": ["a", "b"]},
        {"args": ["b", "a"]},
        {"args": ["a b"]},
        {"args": ["ab"]},
        {"filename": "a"},
        {"args": ["a"]},
    ]
    assert len({computation(**form).arguments_digest() for form in forms}) == len(forms)


def test_parts_are_kept_apart() -> None:
    assert digest_of_part("arguments", []) != digest_of_part("consumers", [])
    assert consumers_digest([]) == digest_of_part("consumers", ())


GOOD: dict[str, Any] = json.loads(event(PLAIN).content())


def text(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[]",
        "null",
        *(text({k: v for k, v in GOOD.items() if k != name}) for name in GOOD),
        *(text({**GOOD, name: None}) for name in GOOD),
        *(text({**GOOD, name: ""}) for name in GOOD),
        text({**GOOD, "algorithm": "A" * 64}),
        text({**GOOD, "algorithm": "a" * 63}),
        text({**GOOD, "algorithm": "\u0661" * 64}),
        text({**GOOD, "algorithm": "a" * 64 + "\n"}),
        text({**GOOD, "algorithm": [ALGORITHM]}),
        text({**GOOD, "datasets": [None]}),
        text({**GOOD, "datasets": [DATASET, ""]}),
        text({**GOOD, "datasets": DATASET}),
        text({**GOOD, "more": OTHER}),
        *(text({**GOOD, "kbs": kbs}) for kbs in ("http://kbs", [None], ["x"], ["http://KBS"])),
        text({**GOOD, "kbs": ["http://kbs", "http://kbs"]}),
        text({**GOOD, "kbs": ["http://kbs", ""]}),
        text({**GOOD, "kbs": ["http://user@kbs"]}),
        json.dumps(GOOD, sort_keys=True),
        text(GOOD).replace("{", '{"algorithm":"' + OTHER + '",', 1),
        text(GOOD)[:-1] + ',"manifest":"' + OTHER + '"}',
        text(GOOD) + " ",
        text(GOOD).replace("algorithm", "\\u0061lgorithm"),
        json.dumps(dict(reversed(GOOD.items())), separators=(",", ":")),
        # As agents of before wrote it.
        text({name: GOOD[name] for name in ("algorithm", "datasets", "manifest")}),
    ],
)
def test_events_of_others_are_refused(content: str) -> None:
    with pytest.raises(FormatError, match="the event of a computation is malformed"):
        ComputationEvent.parse(content)

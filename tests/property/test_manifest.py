# SPDX-License-Identifier: Apache-2.0
"""Properties of manifests: no bytes crash the parser, no meaning is lost or merged."""

import contextlib
import json
from typing import Any

import hypothesis.strategies as st
from hypothesis import given

from cocos.errors import FormatError
from cocos.wire._generated import cvms_pb2 as pb
from cocos.wire.manifest.computation import Computation
from cocos.wire.manifest.parts import AgentConfig, Algorithm, Dataset, Source

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
digests = st.one_of(st.just(b""), st.binary(min_size=32, max_size=32).filter(any))
names = st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True)
kbs = st.sampled_from(["", "http://kbs:8080", "https://kbs.example"])


@st.composite
def sources(draw: st.DrawFn) -> Source:
    url = f"docker://{draw(names)}:5000/{draw(names)}/{draw(names)}:{draw(names)}"
    if draw(st.booleans()):
        key = f"{draw(names)}/{draw(names)}/{draw(names)}"
        return Source("oci-image", url, encrypted=True, key=key, kbs=draw(kbs))
    return Source("oci-image", url)


@st.composite
def computations(draw: st.DrawFn) -> Computation:
    datasets = draw(
        st.lists(
            st.builds(Dataset, sources(), digests), max_size=4, unique_by=lambda d: d.source.url
        )
    )
    return Computation(
        id=draw(names),
        name=draw(texts),
        description=draw(texts),
        algorithm=Algorithm(
            draw(sources()), draw(digests), args=tuple(draw(st.lists(texts, max_size=4)))
        ),
        datasets=tuple(datasets),
        agent_config=AgentConfig(
            log_level=draw(st.sampled_from(["", "debug", "error"])), port=draw(texts)
        ),
    )


def to_json(computation: Computation) -> bytes:
    def resource(each: Algorithm | Dataset) -> dict[str, Any]:
        source = each.source
        shown: dict[str, Any] = {"uri": source.url, "hash": each.hash.hex()}
        if source.encrypted:
            shown |= {"encrypted": True, "kbs_resource_path": source.key, "kbs_url": source.kbs}
        return shown

    document = {
        "computation_id": computation.id,
        "name": computation.name,
        "description": computation.description,
        "algorithm": {**resource(computation.algorithm), "args": computation.algorithm.args},
        "datasets": [resource(each) for each in computation.datasets],
        "agent_config": {
            "log_level": computation.agent_config.log_level,
            "port": computation.agent_config.port,
        },
    }
    return json.dumps(document).encode()


@given(computations())
def test_forms_agree(computation: Computation) -> None:
    from_proto = Computation.from_proto(computation.to_proto())
    from_json = Computation.from_json(to_json(computation))
    assert from_proto == from_json == computation
    assert from_proto.digest() == from_json.digest()


@given(computations())
def test_every_hash_on_the_wire_has_the_length_that_others_rely_on(
    computation: Computation,
) -> None:
    """Agents of the original crash on a shorter one."""
    message = pb.ComputationRunReq.FromString(computation.to_proto())
    sent = [message.algorithm.hash, *(each.hash for each in message.datasets)]
    pinned = [computation.algorithm.hash, *(each.hash for each in computation.datasets)]
    assert sent == [pin or bytes(32) for pin in pinned]


@given(computations(), computations())
def test_digests_are_equal_only_for_equal_computations(one: Computation, two: Computation) -> None:
    assert (one == two) == (one.digest() == two.digest())


@given(st.binary(max_size=400))
def test_no_bytes_crash_the_protobuf_parser(data: bytes) -> None:
    with contextlib.suppress(FormatError):
        Computation.from_proto(data)


@given(st.binary(max_size=80), st.binary(max_size=80), st.text(max_size=40), st.text(max_size=40))
def test_no_message_crashes_the_checks(hash_: bytes, key: bytes, url: str, path: str) -> None:
    try:
        source = pb.Source(url=url, kbs_resource_path=path, encrypted=True)
        algorithm = pb.Algorithm(
            hash=hash_, userKey=key, source=source, kbs=pb.KBSConfig(url=path, enabled=True)
        )
    except UnicodeEncodeError:
        return
    message = pb.ComputationRunReq(
        id="1",
        algorithm=algorithm,
        datasets=[pb.Dataset(hash=hash_, userKey=key, filename=path, source=source)],
        result_consumers=[pb.ResultConsumer(userKey=key)],
    )
    with contextlib.suppress(FormatError):
        Computation.from_proto(message.SerializeToString())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=10,
)
members = st.sampled_from(
    ["computation_id", "id", "algorithm", "datasets", "kbs_url", "result_consumers", "agent_config"]
)


@given(st.dictionaries(members, json_values))
def test_no_json_crashes_the_parser(document: dict[str, Any]) -> None:
    with contextlib.suppress(FormatError):
        Computation.from_json(json.dumps(document).encode())


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_json_parser(data: bytes) -> None:
    with contextlib.suppress(FormatError):
        Computation.from_json(data)

# SPDX-License-Identifier: Apache-2.0
"""Manifests at their limits: what is just allowed, and what is one too much."""

import base64
import dataclasses
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cocos.errors import FormatError
from cocos.wire._generated import cvms_pb2 as pb
from cocos.wire.manifest.computation import Computation, make_source
from cocos.wire.manifest.parts import OCI_IMAGE, Algorithm, Source


def consumer() -> dict[str, str]:
    der = (
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return {"user_key": base64.b64encode(der).decode()}


CONSUMERS = [consumer() for _ in range(65)]


def manifest(**members: Any) -> bytes:
    document = {"computation_id": "1", "algorithm": {"uri": "h:1/x"}, **members}
    return json.dumps(document).encode()


def sets(number: int) -> list[dict[str, str]]:
    return [{"uri": f"h:1/d{each}"} for each in range(number)]


def algorithm(**members: Any) -> dict[str, Any]:
    return {"algorithm": {"uri": "h:1/x", **members}}


def filename(name: str) -> dict[str, Any]:
    return {"datasets": [{"uri": "h:1/d", "filename": name}]}


@pytest.mark.parametrize(
    "members",
    [
        {"computation_id": "a" * 128},
        {"name": "x" * 256},
        {"description": "x" * 4096},
        algorithm(uri="oci:/" + "a" * (2048 - 5)),
        algorithm(args=["a" * (2**17 - 1)]),
        algorithm(args=["é" * (2**16 - 1)]),
        algorithm(args=["a"] * 2**16),
        {"datasets": sets(64)},
        filename("a" * 255),
        filename("é" * 127 + "a"),
        {"result_consumers": CONSUMERS[:64]},
        *({"agent_config": {"log_level": each}} for each in ("", "debug", "INFO", "Warning")),
    ],
    ids=lambda members: str(members)[:60],
)
def test_just_allowed(members: dict[str, Any]) -> None:
    Computation.from_json(manifest(**members))


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"computation_id": "a" * 129}, "id: must be"),
        ({"computation_id": "é"}, "id: must be"),
        ({"name": "x" * 257}, "name: longer than 256"),
        ({"description": "x" * 4097}, "description: longer than 4096"),
        (algorithm(uri="oci:/" + "a" * (2049 - 5)), "is no image"),
        (algorithm(uri="oci:/a,b"), "is no image"),
        (algorithm(uri="oci:/a:b,c"), "is no image"),
        (algorithm(args=["a" * 2**17]), "algo_args: more than 131072 bytes"),
        (algorithm(args=["é" * 2**16]), "algo_args: more than 131072 bytes"),
        (algorithm(args=["a"] * 2**16 + [""]), "algo_args: more than 131072 bytes"),
        ({"datasets": sets(65)}, "datasets: more than 64"),
        (filename("a" * 256), r"datasets\[0\].filename"),
        (filename("é" * 128), r"datasets\[0\].filename"),
        (filename("."), r"datasets\[0\].filename"),
        (filename("a\x7f"), r"datasets\[0\].filename"),
        ({"result_consumers": CONSUMERS}, "result_consumers: more than 64"),
    ],
    ids=lambda members: str(members)[:60],
)
def test_one_too_much(members: dict[str, Any], problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        Computation.from_json(manifest(**members))


def test_one_image_twice_is_refused_under_any_names() -> None:
    twice = [{"uri": "h:1/d", "filename": "a"}, {"uri": "h:1/d", "filename": "b"}]
    with pytest.raises(FormatError, match="two come from 'docker://h:1/d'") as caught:
        Computation.from_json(manifest(datasets=twice))
    assert "file name" not in caught.value.message


def test_a_dataset_is_not_decompressed() -> None:
    source = {"url": "h:1/d"}
    document = {
        "id": "1",
        "algorithm": {"source": {"url": "h:1/x"}},
        "datasets": [{"source": source, "decompress": True}],
    }
    with pytest.raises(FormatError, match=r"datasets\[0\].decompress: an image's files"):
        Computation.from_json(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (Source(OCI_IMAGE, "oci:relative/folder"), "is no image"),
        (
            Source(OCI_IMAGE, "docker://h:1/x", True, "a/b/c", "HTTP://kbs:8080/"),
            "is written as 'http://kbs:8080'",
        ),
    ],
)
def test_what_no_form_of_a_manifest_would_have_become_is_refused(
    source: Source, problem: str
) -> None:
    """The parsers write sources in one way; a computation holds none that is written otherwise."""
    good = Computation.from_json(manifest())
    with pytest.raises(FormatError, match=problem):
        dataclasses.replace(good, algorithm=Algorithm(source))


def test_what_the_original_form_leaves_out_is_off() -> None:
    plain = {"id": "1", "algorithm": {"source": {"url": "h:1/x"}}}
    assert not Computation.from_json(json.dumps(plain).encode()).algorithm.source.encrypted
    source = {"url": "h:1/x", "encrypted": True, "kbs_resource_path": "a/b/c"}
    unsaid = {"id": "1", "algorithm": {"source": source, "kbs": {"url": "http://kbs:8080"}}}
    with pytest.raises(FormatError, match="names no KBS"):
        Computation.from_json(json.dumps(unsaid).encode())


def test_a_strange_member_is_named_by_its_place() -> None:
    with pytest.raises(FormatError, match=r"that nobody knows: x, agent_config\.y$"):
        Computation.from_json(manifest(x=1, agent_config={"y": 1}))


def test_the_size_of_a_manifest() -> None:
    text = manifest()
    largest = text + b" " * (4 * 2**20 - len(text))
    assert Computation.from_json(largest) == Computation.from_json(text)
    for parse in (Computation.from_json, Computation.from_proto):
        with pytest.raises(FormatError, match="larger than 4194304 bytes"):
            parse(largest + b" ")


@pytest.mark.parametrize("end", [b"\xff", b"\x0a\x05ab", b"\x0a\x01\xff"])
def test_a_message_that_breaks_off_is_none(end: bytes) -> None:
    """What was read until then looks like a whole manifest."""
    whole = Computation.from_json(manifest()).to_proto()
    with pytest.raises(FormatError, match="not a serialized ComputationRunReq"):
        Computation.from_proto(whole + end)


@pytest.mark.parametrize("kind", ["wasm", "docker"])
def test_other_kinds_of_algorithm_are_refused_in_messages_too(kind: str) -> None:
    algorithm = pb.Algorithm(source=pb.Source(url="h:1/x"), algo_type=kind)
    message = pb.ComputationRunReq(id="1", algorithm=algorithm)
    with pytest.raises(FormatError, match=f"'{kind}' is not available yet"):
        Computation.from_proto(message.SerializeToString())


def secret(**members: Any) -> dict[str, Any]:
    return {"uri": "h:1/x", "encrypted": True, "kbs_resource_path": "a/b/c", **members}


def test_only_what_is_encrypted_has_a_kbs() -> None:
    plain = Computation.from_json(manifest(kbs_url="http://kbs"))
    assert plain.kbs() == ()
    assert not pb.ComputationRunReq.FromString(plain.to_proto()).algorithm.HasField("kbs")
    one = Computation.from_json(manifest(algorithm=secret(kbs_url="HTTP://kbs/"), datasets=sets(2)))
    assert one.kbs() == ("http://kbs",)


@pytest.mark.parametrize("url", ["", "/", "//"])
def test_no_kbs_named_is_the_machines_own(url: str) -> None:
    assert Computation.from_json(manifest(algorithm=secret(kbs_url=url))).kbs() == ("",)


@pytest.mark.parametrize(
    ("type_", "url", "expected"),
    [
        ("", "", (OCI_IMAGE, "")),
        ("", "h:1/x", (OCI_IMAGE, "docker://h:1/x")),
        ("", "docker://h:1/x", (OCI_IMAGE, "docker://h:1/x")),
        ("", "oci:/x", (OCI_IMAGE, "oci:/x")),
        ("", "gs://bucket/x", ("gcs", "gs://bucket/x")),
        ("", "s3://bucket/x", ("s3", "s3://bucket/x")),
        (OCI_IMAGE, "", (OCI_IMAGE, "")),
        (OCI_IMAGE, "h:1/x", (OCI_IMAGE, "docker://h:1/x")),
        (OCI_IMAGE, "s3://bucket/x", (OCI_IMAGE, "s3://bucket/x")),
        ("s3", "bucket/x", ("s3", "bucket/x")),
        ("s3", "", ("s3", "")),
    ],
)
def test_what_a_source_leaves_unsaid(type_: str, url: str, expected: tuple[str, str]) -> None:
    source = make_source(type_, url, "", encrypted=False, kbs=None)
    assert (source.type, source.url) == expected

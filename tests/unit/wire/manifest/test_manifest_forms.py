# SPDX-License-Identifier: Apache-2.0
"""Manifests: both JSON forms and protobuf mean the same, and what is wrong is all named."""

import base64
import dataclasses
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from cocos.errors import FormatError
from cocos.wire._generated import cvms_pb2 as pb
from cocos.wire.manifest.computation import Computation
from cocos.wire.manifest.parts import AgentConfig


def der(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


CONSUMER = der(ec.generate_private_key(ec.SECP256R1()).public_key())

GUIDE: dict[str, Any] = {
    "computation_id": "1",
    "algorithm": {
        "type": "oci-image",
        "uri": "docker://localhost:5000/encrypted-lin-reg:v1.0",
        "encrypted": True,
        "kbs_resource_path": "default/key/algo-key",
    },
    "datasets": [
        {
            "type": "oci-image",
            "uri": "docker://localhost:5000/encrypted-iris:v1.0",
            "encrypted": True,
            "kbs_resource_path": "default/key/dataset-key",
        }
    ],
    "kbs_url": "http://192.168.100.15:8080",
}
ORIGINAL: dict[str, Any] = {
    "id": "1",
    "datasets": [
        {
            "hash": [0] * 32,
            "source": {
                "type": "oci-image",
                "url": "docker://localhost:5000/encrypted-iris:v1.0",
                "kbs_resource_path": "default/key/dataset-key",
                "encrypted": True,
            },
            "kbs": {"url": "http://192.168.100.15:8080", "enabled": True},
        }
    ],
    "algorithm": {
        "hash": [0] * 32,
        "source": {
            "url": "docker://localhost:5000/encrypted-lin-reg:v1.0",
            "kbs_resource_path": "default/key/algo-key",
            "encrypted": True,
        },
        "kbs": {"url": "http://192.168.100.15:8080/", "enabled": True},
    },
}


def parse(document: dict[str, Any]) -> Computation:
    return Computation.from_json(json.dumps(document).encode())


def changed(document: dict[str, Any], *path: str | int, value: object) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(document))
    place: Any = copy
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return copy


def test_the_guides_manifest() -> None:
    computation = parse(GUIDE)
    assert computation.id == "1"
    source = computation.algorithm.source
    assert source.url == "docker://localhost:5000/encrypted-lin-reg:v1.0"
    assert (source.encrypted, source.key) == (True, "default/key/algo-key")
    assert source.kbs == "http://192.168.100.15:8080"
    assert computation.datasets[0].source.kbs == "http://192.168.100.15:8080"
    assert computation.result_consumers == ()


def test_all_forms_of_a_computation_have_one_digest() -> None:
    guide, original = parse(GUIDE), parse(ORIGINAL)
    assert guide == original
    again = Computation.from_proto(guide.to_proto())
    assert again == guide
    assert guide.digest() == original.digest() == again.digest()
    assert len(guide.digest()) == 32


def test_own_kbs_of_a_resource_wins() -> None:
    own = parse(changed(GUIDE, "algorithm", "kbs_url", value="https://kbs.example"))
    assert own.algorithm.source.kbs == "https://kbs.example"
    assert own.datasets[0].source.kbs == "http://192.168.100.15:8080"
    guests = parse(changed(GUIDE, "algorithm", "kbs_url", value=""))
    assert guests.algorithm.source.kbs == ""


def test_kbs_of_a_plain_resource_means_nothing() -> None:
    document = {"computation_id": "1", "algorithm": {"uri": "localhost:5000/algo"}}
    plain = parse(document)
    assert plain.algorithm.source.url == "docker://localhost:5000/algo"
    assert plain == parse({**document, "kbs_url": "http://kbs:8080"})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("computation_id",), "2"),
        (("name",), "n"),
        (("description",), "d"),
        (("kbs_url",), "https://other"),
        (("algorithm", "uri"), "docker://localhost:5000/other"),
        (("algorithm", "kbs_resource_path"), "default/key/other"),
        (("algorithm", "hash"), "11" * 32),
        (("algorithm", "args"), ["a"]),
        (("algorithm", "user_key"), base64.b64encode(CONSUMER).decode()),
        (("datasets",), []),
        (("datasets", 0, "uri"), "docker://localhost:5000/other"),
        (("datasets", 0, "kbs_resource_path"), "default/key/other"),
        (("datasets", 0, "hash"), "11" * 32),
        (("datasets", 0, "filename"), "f"),
        (("result_consumers",), [{"user_key": base64.b64encode(CONSUMER).decode()}]),
        *(
            (("agent_config",), {field.name: "debug" if field.name == "log_level" else "x"})
            for field in dataclasses.fields(AgentConfig)
            if field.name != "attested_tls"
        ),
    ],
)
def test_everything_is_in_the_digest(path: tuple[str | int, ...], value: object) -> None:
    assert parse(changed(GUIDE, *path, value=value)).digest() != parse(GUIDE).digest()


def test_order_of_datasets_and_arguments_is_in_the_digest() -> None:
    two = [{"uri": "localhost:5000/a"}, {"uri": "localhost:5000/b"}]
    base = {"computation_id": "1", "algorithm": {"uri": "h:1/x", "args": ["a", "b"]}}
    first = parse({**base, "datasets": two})
    assert first.digest() != parse({**base, "datasets": two[::-1]}).digest()
    joined = {**base, "algorithm": {"uri": "h:1/x", "args": ["a b"]}, "datasets": two}
    assert first.digest() != parse(joined).digest()


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (("computation_id",), "", "id: must be"),
        (("computation_id",), "../../etc", "id: must be"),
        (("computation_id",), "a/b", "id: must be"),
        (("name",), "x" * 257, "name: longer"),
        (("algorithm", "uri"), "", "algorithm: has no source URL"),
        (("algorithm", "uri"), "s3://bucket/key", "no image such as"),
        (("algorithm", "type"), "s3", "type 's3' are not available"),
        (("algorithm", "uri"), "docker://host:5000/UPPER", "no image such as"),
        (("algorithm", "uri"), "docker://host:5000/a,b", "no image such as"),
        (("algorithm", "uri"), "docker://host:5000/a b", "no image such as"),
        (("algorithm", "uri"), "oci:relative/folder", "no image such as"),
        (("algorithm", "uri"), "oci:/a/../../etc", "no image such as"),
        (("algorithm", "uri"), "docker-archive:/etc/passwd", "no image at a registry"),
        (("algorithm", "hash"), "ab", "algorithm.hash: has 1 bytes instead of 32"),
        (("algorithm", "hash"), [1, 2, 3], "algorithm.hash: has 3 bytes instead of 32"),
        (("algorithm", "hash"), [256], "neither hex text nor"),
        (("algorithm", "hash"), "xyz", "neither hex text nor"),
        (("algorithm", "kbs_resource_path"), "", "names no kbs_resource_path"),
        (("algorithm", "kbs_resource_path"), "../../secret", "is not a resource path"),
        (("algorithm", "kbs_resource_path"), "a/b", "is not a resource path"),
        (("algorithm", "encrypted"), False, "says that it is not encrypted"),
        (("algorithm", "kbs_url"), "ftp://x", "no KBS address"),
        (("algorithm", "kbs_url"), "http://user:pw@x", "no KBS address"),
        (("algorithm", "kbs_url"), "http://x,y", "no KBS address"),
        (("algorithm", "kbs_url"), "http://x\ny", "no KBS address"),
        (("algorithm", "kbs_url"), "http://x:99999", "no KBS address"),
        (("algorithm", "args"), ["a\0b"], "NUL"),
        (("algorithm", "args"), ["a" * 2**17], "bytes"),
        (("algorithm", "user_key"), "AAAA", "algorithm.user_key"),
        (("datasets", 0, "filename"), "../evil", r"datasets\[0\].filename"),
        (("datasets", 0, "filename"), "..", r"datasets\[0\].filename"),
        (("datasets", 0, "filename"), "a\nb", r"datasets\[0\].filename"),
        (("datasets", 0, "filename"), "é" * 128, r"datasets\[0\].filename"),
        (("result_consumers",), [{"user_key": "AAAA"}], r"result_consumers\[0\]"),
        (("agent_config",), {"log_level": "chatty"}, "agent_config.log_level"),
        (("agent_config",), {"attested_tls": True}, "attested_tls: not available yet"),
        (("kbs_url",), None, "names no KBS"),
    ],
)
def test_refused(path: tuple[str | int, ...], value: object, problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        parse(changed(GUIDE, *path, value=value))


@pytest.mark.parametrize("kind", ["python", "wasm", "bin", "docker"])
def test_other_kinds_of_algorithm_are_refused_by_name(kind: str) -> None:
    with pytest.raises(FormatError, match=f"'{kind}' is not available yet"):
        parse(changed(ORIGINAL, "algorithm", "algo_type", value=kind))


def test_duplicates() -> None:
    one = {"uri": "h:1/a", "filename": "f"}
    document = {"computation_id": "1", "algorithm": {"uri": "h:1/x"}, "datasets": [one, one]}
    with pytest.raises(FormatError, match=r"two have the file name 'f'.*two come from"):
        parse(document)
    key = {"user_key": base64.b64encode(CONSUMER).decode()}
    with pytest.raises(FormatError, match="the same key twice"):
        parse({**GUIDE, "result_consumers": [key, key]})


def test_every_problem_is_listed() -> None:
    document = changed(GUIDE, "computation_id", value="")
    document = changed(document, "algorithm", "hash", value="ab")
    document = changed(document, "datasets", 0, "filename", value="/")
    with pytest.raises(FormatError) as caught:
        parse(document)
    message = caught.value.message
    assert "id: " in message
    assert "algorithm.hash: " in message
    assert "datasets[0].filename: " in message


def test_every_unknown_member_is_named() -> None:
    document = changed(GUIDE, "algorithm", "encrypte", value=True)
    document = changed(document, "datasets", 0, "decrypt", value=True)
    document["kbs"] = {}
    with pytest.raises(FormatError) as caught:
        parse(document)
    for name in ("algorithm.encrypte", "datasets[0].decrypt", "kbs"):
        assert name in caught.value.message
    with pytest.raises(FormatError, match=r"algorithm\.kbs\.ur"):
        parse(changed(ORIGINAL, "algorithm", "kbs", value={"ur": "x"}))


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        (ed25519.Ed25519PrivateKey.generate().public_key(), "cocos-cli keys"),
        (rsa.generate_private_key(65537, 1024).public_key(), "2048"),  # noqa: S505 - that is the point
        (ec.generate_private_key(ec.SECP256K1()).public_key(), "result_consumers"),
    ],
)
def test_consumers_that_cannot_receive_are_refused(key: PublicKeyTypes, problem: str) -> None:
    text = base64.b64encode(der(key)).decode()
    with pytest.raises(FormatError, match=problem):
        parse({**GUIDE, "result_consumers": [{"user_key": text}]})


@pytest.mark.parametrize("length", [1, 31, 33, 64])
def test_a_hash_of_another_length_is_an_error_not_a_crash(length: int) -> None:
    message = pb.ComputationRunReq(
        id="1", algorithm=pb.Algorithm(hash=b"x" * length, source=pb.Source(url="h:1/x"))
    )
    with pytest.raises(FormatError, match=f"has {length} bytes"):
        Computation.from_proto(message.SerializeToString())


def test_a_manifest_without_algorithm_is_an_error_not_a_crash() -> None:
    with pytest.raises(FormatError, match="algorithm: missing"):
        Computation.from_proto(pb.ComputationRunReq(id="1").SerializeToString())


def test_a_disabled_kbs_is_none() -> None:
    source = pb.Source(url="h:1/x", encrypted=True, kbs_resource_path="a/b/c")
    disabled = pb.Algorithm(source=source, kbs=pb.KBSConfig(url="http://kbs", enabled=False))
    with pytest.raises(FormatError, match="names no KBS"):
        Computation.from_proto(pb.ComputationRunReq(id="1", algorithm=disabled).SerializeToString())
    guests = pb.Algorithm(source=source, kbs=pb.KBSConfig(enabled=True))
    message = pb.ComputationRunReq(id="1", algorithm=guests).SerializeToString()
    assert Computation.from_proto(message).algorithm.source.kbs == ""


def test_oversized_manifest() -> None:
    with pytest.raises(FormatError, match="larger than"):
        Computation.from_json(b" " * (4 * 2**20 + 1))


def test_a_manifest_of_very_many_datasets_is_refused_in_a_sentence() -> None:
    """Comparing each with each kept the agent busy for an hour; its answer had megabytes."""
    sets = [pb.Dataset(filename=f"f{number}") for number in range(2000)]
    algorithm = pb.Algorithm(source=pb.Source(url="docker://registry/image:1"))
    message = pb.ComputationRunReq(id="1", algorithm=algorithm, datasets=sets)
    with pytest.raises(FormatError) as caught:
        Computation.from_proto(message.SerializeToString())
    assert caught.value.message == "the manifest is refused: datasets: more than 64"


@pytest.mark.parametrize(
    ("algorithm", "name"),
    [
        ({"uri": "docker://h/a", "type": "oci-image"}, "computation_id"),
        ({"uri": "docker://h/a", "wrong": 1}, "computation_id"),
        ({"source": {"url": "docker://h/a"}}, "id"),
        ({}, "computation_id"),
        ("text", "computation_id"),
        (None, "computation_id"),
    ],
)
def test_a_manifest_without_identifier_misses_that_and_nothing_else(
    algorithm: object, name: str
) -> None:
    members = {"name": "x", "kbs_url": "", "algorithm": algorithm}
    text = json.dumps(members if algorithm is not None else {"name": "x"}).encode()
    with pytest.raises(FormatError, match=f"^the manifest has no {name}, "):
        Computation.from_json(text)

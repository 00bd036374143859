# SPDX-License-Identifier: Apache-2.0
"""Flags of cvms-test, in the words of the guide and of the original."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cocos.cvms.order import Order, consumer_key, from_flags, from_manifest, parse_bool
from cocos.errors import ConfigError, FormatError, UsageError
from cocos.wire.manifest.computation import Computation

PUBLIC = ec.generate_private_key(ec.SECP256R1()).public_key()
PEM = PUBLIC.public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
KEY = consumer_key(PEM)

GUIDE = Order(
    attested_tls="false",
    kbs_url="http://10.0.0.1:8080",
    algo_type="oci-image",
    algo_source_url="docker://localhost:5000/encrypted-lin-reg:v1.0",
    algo_kbs_path="default/key/algo-key",
    dataset_type="oci-image",
    dataset_source_urls=["docker://localhost:5000/encrypted-iris:v1.0"],
    dataset_kbs_paths=["default/key/dataset-key"],
)


def test_the_guides_flags() -> None:
    computation = from_flags(GUIDE, KEY)
    algorithm, dataset = computation.algorithm, computation.datasets[0]
    assert algorithm.source.type == "oci-image"
    assert algorithm.source.encrypted
    assert algorithm.source.key == "default/key/algo-key"
    assert algorithm.source.kbs == dataset.source.kbs == "http://10.0.0.1:8080"
    assert computation.result_consumers == (KEY,)
    assert algorithm.user_key == dataset.user_key == KEY


def test_several_datasets_some_of_them_plain() -> None:
    order = replace(
        GUIDE,
        dataset_source_urls=["h:1/a, h:1/b", "h:1/c"],
        dataset_kbs_paths=["default/key/a,,default/key/c"],
        dataset_kbs_urls=[",,https://other"],
        dataset_hashes=["", "", ""],
    )
    sources = [dataset.source for dataset in from_flags(order, KEY).datasets]
    assert [source.encrypted for source in sources] == [True, False, True]
    assert [source.kbs for source in sources] == ["http://10.0.0.1:8080", None, "https://other"]


def test_without_a_kbs_the_cvms_own() -> None:
    assert from_flags(replace(GUIDE, kbs_url=""), KEY).algorithm.source.kbs == ""


def test_arguments_and_hash() -> None:
    order = replace(GUIDE, algo_args="a,b c", algo_hash="ab" * 32)
    algorithm = from_flags(order, KEY).algorithm
    assert algorithm.args == ("a", "b c")
    assert algorithm.hash == bytes.fromhex("ab" * 32)


@pytest.mark.parametrize("word", ["1", "t", "T", "true", "TRUE", "True"])
def test_attested_tls_is_refused_clearly(word: str) -> None:
    with pytest.raises(UsageError, match="not available yet"):
        from_flags(replace(GUIDE, attested_tls=word), KEY)


@pytest.mark.parametrize("word", ["0", "f", "F", "false", "FALSE", "False"])
def test_go_words_for_false(word: str) -> None:
    assert parse_bool(word, "-x") is False


@pytest.mark.parametrize("word", ["", "yes", "tRue", "no"])
def test_other_words(word: str) -> None:
    with pytest.raises(UsageError, match="-attested-tls-bool"):
        from_flags(replace(GUIDE, attested_tls=word), KEY)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"algo_source_url": ""}, "-algo-source-url is missing"),
        ({"algo_path": "x"}, "uploads"),
        ({"data_paths": "x"}, "uploads"),
        ({"dataset_kbs_paths": ["a/b/c,d/e/f"]}, "2 entries for 1 datasets"),
        ({"dataset_source_urls": ["a,,b"]}, "empty entry"),
        ({"dataset_decompress": "maybe"}, "-dataset-decompress"),
    ],
)
def test_contradictions(change: dict[str, str], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        from_flags(replace(GUIDE, **change), KEY)


@pytest.mark.parametrize("kind", ["python", "wasm", "docker", "s3"])
def test_other_types_are_refused_by_name(kind: str) -> None:
    with pytest.raises(FormatError, match=kind):
        from_flags(replace(GUIDE, algo_type=kind), KEY)
    with pytest.raises(FormatError, match=kind):
        from_flags(replace(GUIDE, dataset_type=kind), KEY)


def test_nobody_could_open_the_result() -> None:
    with pytest.raises(UsageError, match="-public-key"):
        from_flags(GUIDE, None)
    computation = Computation.from_json(b'{"computation_id":"1","algorithm":{"uri":"h:1/a"}}')
    with pytest.raises(UsageError, match="result_consumers"):
        from_manifest(computation, None)
    assert from_manifest(computation, KEY).result_consumers == (KEY,)


def test_a_key_that_is_none() -> None:
    with pytest.raises(ConfigError, match="not in PEM"):
        consumer_key(b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")

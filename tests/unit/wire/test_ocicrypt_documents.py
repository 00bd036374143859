# SPDX-License-Identifier: Apache-2.0
"""Requests as ocicrypt and ocicrypt-rs really write them, and packets of old providers."""

import base64
import json

import pytest

from cocos.errors import FormatError
from cocos.wire import oci, ocicrypt
from cocos.wire.json import encode

OPTIONS = encode(
    {"symkey": bytes(32), "digest": "sha256:" + "0" * 64, "cipheroptions": {"nonce": bytes(16)}}
)
PARAMETER = base64.b64encode(b"cc_kbc::null").decode()


def test_parameters_of_other_providers_stay_out() -> None:
    document = json.loads(ocicrypt.unwrap_input(b"{}", ["cc_kbc::null"]))
    document["keyunwrapparams"]["dc"]["Parameters"]["privkeys"] = ["not base64: a private key"]
    assert ocicrypt.parse_unwrap(json.dumps(document).encode()).parameters == ("cc_kbc::null",)


@pytest.mark.parametrize(
    "config",
    [None, {}, {"Parameters": None}, {"Parameters": {}}, {"Parameters": {"other": ["eA=="]}}],
)
def test_unwrap_does_not_insist_on_our_name(config: object) -> None:
    document = {"op": "keyunwrap", "keyunwrapparams": {"dc": config, "annotation": "e30="}}
    assert ocicrypt.parse_unwrap(encode(document)).parameters == ()
    wrap = {"op": "keywrap", "keywrapparams": {"ec": config, "optsdata": "e30="}}
    with pytest.raises(FormatError, match="no parameters for attestation-agent"):
        ocicrypt.parse_wrap(encode(wrap))


def test_requests_without_what_they_are_about() -> None:
    config = {"Parameters": {"attestation-agent": [PARAMETER]}}
    for half in (None, {"ec": config}, {"ec": config, "optsdata": None}):
        with pytest.raises(FormatError, match=r"no keywrapparams\.optsdata"):
            ocicrypt.parse_wrap(encode({"op": "keywrap", "keywrapparams": half}))
    for half in (None, {"dc": config}, {"dc": config, "annotation": None}):
        with pytest.raises(FormatError, match=r"no keyunwrapparams\.annotation"):
            ocicrypt.parse_unwrap(encode({"op": "keyunwrap", "keyunwrapparams": half}))


def test_a_parameter_that_is_no_text() -> None:
    config = {"Parameters": {"attestation-agent": [PARAMETER, "/w=="]}}
    unwrap = {"op": "keyunwrap", "keyunwrapparams": {"dc": config, "annotation": "e30="}}
    with pytest.raises(FormatError, match="not UTF-8"):
        ocicrypt.parse_unwrap(encode(unwrap))


def test_requests_as_ocicrypt_writes_them() -> None:
    config = {"Parameters": {"attestation-agent": [PARAMETER]}}
    assert json.loads(ocicrypt.wrap_input(b"{}", ["cc_kbc::null"])) == {
        "op": "keywrap",
        "keywrapparams": {
            "ec": {**config, "DecryptConfig": {"Parameters": {}}},
            "optsdata": "e30=",
        },
        "keyunwrapparams": {"dc": None, "annotation": None},
    }
    assert json.loads(ocicrypt.unwrap_input(b"{}", ["cc_kbc::null"])) == {
        "op": "keyunwrap",
        "keywrapparams": {"ec": None, "optsdata": None},
        "keyunwrapparams": {"dc": config, "annotation": "e30="},
    }


def test_decrypt_config_may_be_null() -> None:
    config = {"Parameters": {"attestation-agent": [PARAMETER]}, "DecryptConfig": None}
    document = {"op": "keywrap", "keywrapparams": {"ec": config, "optsdata": "e30="}}
    assert ocicrypt.parse_wrap(encode(document)).options == b"{}"


def test_layer_key_is_not_in_the_representation() -> None:
    request = ocicrypt.parse_wrap(ocicrypt.wrap_input(b"TOP SECRET", ["x"]))
    assert "SECRET" not in repr(request)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"symkey": bytes(16)}, "layer key is 16 bytes"),
        ({"symkey": "TOPSECRET!"}, "not standard base64"),
        ({"cipheroptions": {"nonce": bytes(12)}}, "nonce is 12 bytes"),
        ({"cipheroptions": {}}, "nonce is 0 bytes"),
        ({"cipheroptions": None}, "malformed"),
        ({"symkey": ["TOPSECRET"]}, "malformed"),
    ],
)
def test_options_that_skopeo_would_choke_on(change: dict[str, object], words: str) -> None:
    ocicrypt.check_options(OPTIONS)
    with pytest.raises(FormatError, match=words) as caught:
        ocicrypt.check_options(encode({**json.loads(OPTIONS), **change}))
    assert "SECRET" not in str(caught.value)
    assert "SECRET" not in str(caught.value.__cause__)


PACKET = {
    "kid": "kbs:///default/key/k1",
    "wrapped_data": "eA==",
    "iv": base64.b64encode(bytes(12)).decode(),
    "wrap_type": "A256GCM",
}


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"version": "0.1.0", "provider": "kbs", "provider_settings": {}, "annotations": {}},
        {"kid": "/default/key/k1"},
        {"kid": "kbs.example/default/key/k1"},
    ],
)
def test_packets_of_both_versions(extra: dict[str, object]) -> None:
    packet = ocicrypt.Packet.parse(encode({**PACKET, **extra}))
    assert str(packet.key) == "kbs:///default/key/k1"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"provider": "aliyun"}, "key service 'aliyun'"),
        ({"version": "0.2.0"}, "version '0.2.0'"),
        ({"wrap_type": "ROT13"}, "wrap type 'ROT13'"),
        ({"wrap_type": None}, "no wrap_type"),
        ({"iv": None}, "no iv"),
        ({"kid": "a/b"}, "not a key id"),
        ({"kid": "/host/a/b/c"}, "not a key id"),
        ({"kid": "host/a/b/c/d"}, "not a key id"),
        ({"kid": "http://x/a/b/c"}, "not a resource URI"),
        ({"wrapped_data": "***"}, "not standard base64"),
    ],
)
def test_packets_that_are_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(FormatError, match=words):
        ocicrypt.Packet.parse(encode({**PACKET, **change}))


def test_annotation_with_several_packets() -> None:
    pieces = [
        base64.b64encode(encode({**PACKET, "kid": f"kbs:///a/b/{name}"})).decode() for name in "cd"
    ]
    layer = oci.Descriptor(
        oci.LAYER_GZIP + oci.ENCRYPTED,
        oci.digest_of(b""),
        0,
        {"org.opencontainers.image.enc.keys.provider.attestation-agent": ",".join(pieces)},
    )
    assert [packet.key.path for packet in ocicrypt.layer_packets(layer)] == ["a/b/c", "a/b/d"]
    plain = oci.Descriptor(oci.LAYER_GZIP, oci.digest_of(b""), 0)
    assert ocicrypt.layer_packets(plain) == ()


def test_configurations() -> None:
    assert json.loads(ocicrypt.grpc_config("127.0.0.1:50011")) == {
        "key-providers": {"attestation-agent": {"grpc": "127.0.0.1:50011"}}
    }
    assert json.loads(ocicrypt.command_config(["/bin/kp", "once"])) == {
        "key-providers": {"attestation-agent": {"cmd": {"path": "/bin/kp", "args": ["once"]}}}
    }

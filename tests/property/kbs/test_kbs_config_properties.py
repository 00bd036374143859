# SPDX-License-Identifier: Apache-2.0
"""The reader of configuration files: nothing in a file goes unnoticed, nothing crashes it."""

import contextlib
import copy
import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cocos.errors import ConfigError, UsageError, proposable
from cocos.kbs.config import Settings

FILE = tomllib.loads("""
session_storage_type = "Memory"
timeout = 5
[http_server]
sockets = ["127.0.0.1:1"]
insecure_http = true
tls_profile = "custom"
tls_min_version = "1.2"
worker_count = 1
[attestation_token]
trusted_certs_paths = ["a"]
trusted_jwk_sets = ["b"]
extra_teekey_paths = ["/c"]
[attestation_service]
type = "coco_as_builtin"
timeout = 7
work_dir = "w"
[attestation_service.attestation_token_broker]
duration_min = 3
issuer_name = "i"
[attestation_service.attestation_token_broker.signer]
key_path = "k"
[attestation_service.rvps_config]
type = "BuiltIn"
store_config = { a = 1 }
[policy_engine]
policy_path = "p"
[admin]
authorization_mode = "AuthenticatedAuthorization"
[admin.authentication.bearer_jwt]
identity_providers = [{ issuer = "i", audience = "a", public_key_uri = "p" }]
[admin.authorization.regex_acl]
acls = [{ role = "r", allowed_endpoints = "^/kbs$" }]
[storage_backend]
storage_type = "Postgres"
[storage_backend.backends.postgres]
password = "s3cret"
[[plugins]]
name = "resource"
storage_backend_type = "kvstorage"
""")
# What is handed on as it is, or not looked into.
OPAQUE = ("store_config",)
VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


def tables(node: Any) -> list[dict[str, Any]]:
    if isinstance(node, list):
        return [table for item in node for table in tables(item)]
    if not isinstance(node, dict):
        return []
    inner = [table for key, value in node.items() if key not in OPAQUE for table in tables(value)]
    return [node, *inner]


def leaves(file: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    return [(table, key) for table in tables(file) for key in table]


def load(file: dict[str, Any]) -> Settings | str:
    try:
        return Settings.model_validate(file)
    except ConfigError as error:
        return f"{error.message} {error.hint}"
    except ValidationError as error:
        return str(error.errors(include_input=False)[0]["loc"])


def test_the_file_itself_is_good() -> None:
    settings = load(FILE)
    assert isinstance(settings, Settings), settings
    assert settings.timeout == 5


@given(st.data(), st.text(min_size=1, max_size=12))
def test_an_unknown_key_anywhere_is_named(data: st.DataObject, word: str) -> None:
    file = copy.deepcopy(FILE)
    name = f"zz{word}"
    data.draw(st.sampled_from(tables(file)))[name] = 1
    said = load(file)
    assert isinstance(said, str)
    assert f"{name} is not a setting" in said


@given(st.data())
def test_a_misspelt_key_is_named_with_the_right_one(data: st.DataObject) -> None:
    file = copy.deepcopy(FILE)
    table, key = data.draw(st.sampled_from(leaves(file)))
    place = data.draw(st.integers(1, len(key) - 1))
    wrong = key[:place] + key[place + 1 :]
    table[wrong] = table.pop(key)
    said = load(file)
    assert isinstance(said, str)
    # Some tables need the key that is now gone, and say that instead.
    assert "did you mean" in said or "needs" in said or not proposable([key])
    assert "s3cret" not in said


@given(st.data(), VALUES)
def test_any_value_anywhere(data: st.DataObject, value: Any) -> None:
    file = copy.deepcopy(FILE)
    table, key = data.draw(st.sampled_from(leaves(file)))
    table[key] = value
    said = load(file)
    if isinstance(said, Settings):
        with contextlib.suppress(ConfigError, UsageError):
            said.check()


@given(st.dictionaries(st.text(max_size=10) | st.sampled_from(list(FILE)), VALUES, max_size=3))
def test_any_file(file: dict[str, Any]) -> None:
    load(file)

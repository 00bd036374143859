# SPDX-License-Identifier: Apache-2.0
"""Configuration files of Trustee, every generation: honoured, or refused by name."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from cocos.errors import CallerError, ConfigError
from cocos.kbs.config import Settings
from cocos.kbs.settings.trustee import MEMORY

# What releases ship or document, one file per generation.
V08 = """
insecure_http = true
insecure_api = true
attestation_token_type = "CoCo"
sockets = ["127.0.0.1:8080"]
timeout = 7

[repository_config]
type = "LocalFs"
dir_path = "/opt/confidential-containers/kbs/repository"

[as_config]
work_dir = "/opt/confidential-containers/attestation-service"
policy_engine = "opa"
rvps_store_type = "LocalFs"
attestation_token_broker = "Simple"

[as_config.attestation_token_config]
duration_min = 9

[policy_engine_config]
policy_path = "/opa/confidential-containers/kbs/policy.rego"
"""
V10 = """
sockets = ["127.0.0.1:8080"]
auth_public_key = "./kbs.pem"
insecure_http = true

[attestation_token_config]
attestation_token_type = "CoCo"

[repository_config]
type = "LocalFs"
dir_path = "./data/repository"

[as_config]
work_dir = "./data/attestation-service"
policy_engine = "opa"
attestation_token_broker = "Simple"

[as_config.attestation_token_config]
duration_min = 5

[as_config.rvps_config]
store_type = "LocalFs"
remote_addr = ""

[policy_engine_config]
policy_path = "./data/policy_1.rego"
"""
V11 = """
[http_server]
insecure_http = true

[attestation_token]
insecure_key = false

[attestation_service]
type = "coco_as_builtin"
work_dir = "/opt/confidential-containers/attestation-service"
policy_engine = "opa"
timeout = 5

[attestation_service.attestation_token_broker]
type = "Ear"
duration_min = 5
policy_dir = "/opt/confidential-containers/attestation-service/policies"

[attestation_service.rvps_config]
type = "BuiltIn"
store_type = "LocalFs"

[policy_engine]
policy_path = "/opa/confidential-containers/kbs/policy.rego"

[admin]
insecure_api = true

[[plugins]]
name = "resource"
type = "LocalFs"
dir_path = "/opt/confidential-containers/kbs/repository"
"""
V16 = """
[http_server]
sockets = ["0.0.0.0:8080"]
insecure_http = true
worker_count = 4

[attestation_token]

[attestation_service]
type = "coco_as_builtin"
work_dir = "/opt/confidential-containers/attestation-service"

[attestation_service.attestation_token_broker]
duration_min = 5

[attestation_service.rvps_config]
type = "BuiltIn"

[attestation_service.rvps_config.storage]
type = "LocalJson"
file_path = "/opt/confidential-containers/attestation-service/rvps/reference_values.json"

[admin]
type = "Simple"

[[admin.personas]]
id = "alice"
public_key_path = "/keys/alice.pub"

[[admin.personas]]
id = "bob"
public_key_path = "/keys/bob.pub"

[[plugins]]
name = "resource"
type = "LocalFs"
dir_path = "/var/lib/repository"
"""
V20 = """
session_storage_type = "LocalFs"

[http_server]
sockets = ["127.0.0.1:8080"]
certificate = "./https.crt"
private_key = "./https.key"
payload_request_size = 4
tls_profile = "modern"

[attestation_service]
type = "coco_as_builtin"
storage_type = "LocalFs"

[attestation_service.attestation_token_broker]
duration_min = 5
issuer_name = "issuer"
developer_name = "https://developer.test"
build_name = "build 1"
profile_name = "tag:profile"
verbose_token = false

[attestation_service.rvps_config]
type = "BuiltIn"
storage_type = "local_fs"

[storage_backend]
storage_type = "LocalFs"

[storage_backend.backends.local_fs]
dir_path = "/var/lib/kbs"

[admin]
type = "Simple"
personas = [{ id = "alice", public_key_path = "/keys/alice.pub" }]
roles = [{ id = "alice", allowed_endpoints = "^/kbs/v0/resource/.+$" }]

[[plugins]]
name = "resource"
storage_backend_type = "kvstorage"
"""
V21 = """
session_storage_type = "Redis"

[http_server]
insecure_http = true
tls_profile = "custom"
tls_min_version = "1.2"
tls_max_version = "1.3"

[attestation_service]
type = "CoCoASBuiltIn"

[storage_backend]
storage_type = "postgres"
[storage_backend.backends.postgres]
db = "k b"
username = "u@x"
password = "p/w"
host = "::1"
[storage_backend.backends.redis]
url = "redis://redis.test:6379"

[admin]
authorization_mode = "AuthenticatedAuthorization"

[admin.authentication.bearer_jwt]
role_claim = "realm_access.roles"
identity_providers = [
  { issuer = "issuer", audience = "kbs", public_key_uri = "/etc/kbs/admin.pub" },
  { jwk_set_uri = "https://id.test/keys" },
]

[admin.authorization.regex_acl]
acls = [{ role = "admin", allowed_endpoints = "^/kbs/.+$" }]

[[plugins]]
name = "resource"
"""


def load(text: str, **more: Any) -> Settings:
    return Settings.model_validate({**tomllib.loads(text), **more})


def test_v08() -> None:
    settings = load(V08)
    settings.check()
    assert settings.insecure_http
    assert settings.insecure_api
    assert settings.timeout == 7
    assert settings.token_minutes == 9
    assert settings.storage == "/opt/confidential-containers/kbs/repository"
    assert settings.resource_policy_file == Path("/opa/confidential-containers/kbs/policy.rego")
    noted = " ".join(settings.notes)
    for name in ("work_dir", "policy_engine", "rvps_store_type", "attestation_token_broker"):
        assert f"as_config.{name}: " in noted


def test_v10() -> None:
    settings = load(V10)
    settings.check()
    assert settings.auth_public_keys == {"admin": Path("kbs.pem")}
    assert settings.storage == "./data/repository"
    assert settings.addresses == ("127.0.0.1:8080",)
    keys = load('[attestation_token_config]\nattestation_token_type = "Jwk"\n'
                'trusted_certs_paths = ["https://id.test"]')  # fmt: skip
    assert keys.trusted_jwk_sets == ("https://id.test",)
    assert keys.trusted_certs == ()


def test_v11() -> None:
    settings = load(V11)
    settings.check()
    assert settings.insecure_api
    assert settings.storage == "/opt/confidential-containers/kbs/repository"
    assert not settings.insecure_header_jwk
    assert len(settings.notes) == 4


def test_a_kind_of_token_with_a_table_beside_it() -> None:
    settings = load("""
        [attestation_service]
        attestation_token_broker = "Simple"
        attestation_token_config = { duration_min = 8 }
        """)
    assert settings.token_minutes == 8
    assert settings.notes[0].startswith("attestation_service.attestation_token_broker: ")


def test_v16_and_flags_win() -> None:
    settings = load(V16, sockets=["127.0.0.1:2"], storage="/elsewhere")
    settings.check()
    assert settings.addresses == ("127.0.0.1:2",)
    assert settings.storage == "/elsewhere"
    assert load(V16).storage == "/var/lib/repository"
    assert settings.access_rules is None
    assert settings.auth_public_keys == {
        "alice": Path("/keys/alice.pub"),
        "bob": Path("/keys/bob.pub"),
    }


def test_v20() -> None:
    settings = load(V20)
    settings.check()
    assert settings.tls is not None
    assert settings.tls.min_version == "1.3"
    assert settings.payload_request_size == 4
    assert settings.storage == "/var/lib/kbs"
    assert settings.access_rules is not None
    assert [rule.role for rule in settings.access_rules] == ["alice"]
    assert (settings.token_issuer, settings.token_build) == ("issuer", "build 1")
    assert (settings.token_developer, settings.token_profile) == (
        "https://developer.test",
        "tag:profile",
    )
    assert not settings.verbose_token
    assert settings.notes == ()


def test_v21() -> None:
    settings = load(V21)
    assert settings.storage == "postgresql://u%40x:p%2Fw@[::1]:5432/k%20b"
    assert settings.session_storage == "redis://redis.test:6379"
    assert "p%2Fw" not in repr(settings)
    assert settings.tls_min_version == "1.2"
    assert settings.role_claim == "realm_access.roles"
    first, second = settings.identity_providers
    assert (first.issuer, first.audience, first.public_key_uri) == (
        "issuer",
        "kbs",
        "/etc/kbs/admin.pub",
    )
    assert (second.issuer, second.jwk_set_uri) == (None, "https://id.test/keys")
    assert settings.access_rules is not None
    assert settings.access_rules[0].allowed_endpoints == "^/kbs/.+$"


def test_servers_of_the_environment() -> None:
    environment = {"POSTGRES_URL": "postgresql://p.test/x", "REDIS_URL": "redis://r.test"}
    settings = load(V21, **environment)
    assert settings.storage == "postgresql://p.test/x"
    assert settings.session_storage == "redis://r.test"
    assert load(V20, **environment).storage == "/var/lib/kbs"
    assert load(V20, **environment).session_storage is None
    assert load(V21, **environment, storage="/mine").storage == "/mine"


@pytest.mark.parametrize(
    ("text", "storage"),
    [
        ("[storage_backend]", MEMORY),
        ("[storage_backend]\nstorage_type = 'memory'", MEMORY),
        (
            "[storage_backend]\nstorage_type = 'LocalFs'",
            "/opt/confidential-containers/storage/local_fs",
        ),
        (
            "[storage_backend]\nstorage_type = 'LocalJson'\nbackends.local_json.file_dir_path = '/j'",
            "/j",
        ),
        ("[storage_backend]\nstorage_type = 'Postgres'", "postgresql://postgres@localhost:5432/postgres"),
        ("", None),
    ],
)  # fmt: skip
def test_where_things_are_kept(text: str, storage: str | None) -> None:
    assert load(text).storage == storage


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('type = "InsecureAllowAll"', "insecure_api"),
        ('authorization_mode = "InsecureAllowAll"', "insecure_api"),
        ("insecure_api = true", "insecure_api"),
        ('type = "DenyAll"', "deny_admin"),
        ('authorization_mode = "DenyAll"', "deny_admin"),
    ],
)
def test_every_generation_of_admin(text: str, expected: str) -> None:
    settings = load(f"[admin]\n{text}", insecure_http=True)
    settings.check()
    assert getattr(settings, expected) is True


AUTHENTICATED = "[admin]\nauthorization_mode='AuthenticatedAuthorization'\n"
REFUSED = [
    # (file, the place that the message names, what the hint or the message must say)
    ("colour = 1", "colour is not a setting", None),
    ("[http_servr]\nsockets = []", "http_servr is not", "did you mean http_server?"),
    ("socket = []", "socket is not", "did you mean sockets?"),
    ("[http_server]\nsocket = ['a:1']", "http_server.socket is", "did you mean sockets?"),
    ("[http_server]\nsockets = 'a:1'", "http_server.sockets is not a list", None),
    ("[http_server]\nsockets = [1]", "http_server.sockets is not a list of texts", None),
    ("[http_server]\ninsecure_http = 1", "http_server.insecure_http is not true or", None),
    ("[http_server]\npayload_request_size = true", "http_server.payload_request_size", None),
    ("[http_server]\ntls_profile = 'old'", "http_server.tls_profile", "not safe"),
    ("[http_server]\ntls_profile = 'modrn'", "http_server.tls_profile", "modern, intermediate"),
    ("[http_server]\ntls_min_version = '1.1'", "http_server.tls_min_version", "1.2, 1.3"),
    ("[http_server]\ntls_max_version = '1.2'", "http_server.tls_max_version", "never"),
    ("[http_server]\ntls_groups = 'X25519'", "http_server.tls_groups", "rustls"),
    ("http_server = 1", "http_server is not a table", None),
    ("[admin]\nauthorization_mode = 'Simple'", "admin.authorization_mode", None),
    ("[admin]\ntype = 'Simple'", "admin.personas needs somebody", None),
    ("[admin]\ntype = 'Password'", "admin.type", None),
    ("[admin]\nacls = []", "admin.acls is not", None),
    ("[admin]\npersonas = []", "admin.personas is not", None),
    ("[admin]\ntype='DenyAll'\nauthorization_mode='DenyAll'", "exclude each other", None),
    ("[admin]\ntype='Simple'\n[[admin.personas]]\nid='a'", "admin.personas[0] needs", None),
    (
        "[admin]\ntype='Simple'\n[[admin.personas]]\nid='a'\npublic_key_path='b'\nrole='c'",
        "admin.personas[0].role is not",
        None,
    ),
    (
        "[admin]\ntype='Simple'\npersonas=[{id='a',public_key_path='b'},{id='a',public_key_path='c'}]",
        "admin.personas[1].id is there twice",
        None,
    ),
    (
        "[admin]\nauthorization_mode='AuthenticatedAuthorization'",
        "admin.authentication.bearer_jwt.identity_providers needs",
        None,
    ),
    (
        f"{AUTHENTICATED}authentication.bearer_jwt.identity_providers=[{{issuer='a'}}]",
        "admin.authentication.bearer_jwt.identity_providers[0] needs",
        None,
    ),
    (
        f"{AUTHENTICATED}authentication.bearer_jwt.insecure_header_jwk=true",
        "admin.authentication.bearer_jwt.insecure_header_jwk",
        "choose its key",
    ),
    (
        f"{AUTHENTICATED}authorization.regex_acl.acls=[{{role='a',allowed_endpoint='x'}}]",
        "admin.authorization.regex_acl.acls[0]",
        None,
    ),
    ("[attestation_service]\ntype = 'intel_ta'", "attestation_service.type", "Intel Trust"),
    ("[attestation_service]\nas_addr = 'x'", "attestation_service.as_addr", "inside"),
    ("[attestation_service]\napi_key = 'k'", "attestation_service.api_key", "Intel Trust"),
    ("[attestation_service]\ntimout = 5", "timout is not", "did you mean timeout?"),
    ("[attestation_service]\nstorage_type = 'Redis'", "attestation_service.storage_type", None),
    (
        "[attestation_service.rvps_config]\nstorage_type = 'Postgres'",
        "attestation_service.rvps_config.storage_type",
        "one storage",
    ),
    (
        "[attestation_service.rvps_config]\ntype='GrpcRemote'",
        "attestation_service.rvps_config.type",
        None,
    ),
    (
        "[attestation_service.rvps_config.extractors]\nswid_extractor = {}",
        "extractors.swid_extractor",
        "SWID has no signature",
    ),
    (
        "[attestation_service.verifier_config.tpm_verifier]\ntrusted_ak_keys_dir='x'",
        "verifier_config.tpm_verifier",
        "--tpm-ek-ca",
    ),
    ("[attestation_token]\ninsecure_api = true", "attestation_token.insecure_api", None),
    ("[amber_config]\nbase_url = 'x'", "amber_config.base_url", "Intel Trust"),
    ("[storage_backend]\nstorage_type = 'Redis'", "storage_backend.storage_type", "session"),
    ("[storage_backend]\nstorage_type = 'Etcd'", "storage_backend.storage_type", None),
    (
        "[storage_backend]\nstorage_type='LocalFs'\nbackends.local_fs.dirpath='x'",
        "local_fs.dirpath",
        "dir_path",
    ),
    ("session_storage_type = 'LocalFs'", "session_storage_type", "Redis"),
    ("plugins = [1]", "plugins[0] is not a table", None),
    ("plugins = [{name='nebula-ca'}]", "plugins[0].name", "resource only"),
    ("plugins = [{name='resource',type='Vault'}]", "plugins[0].type", "own storage"),
    ("plugins = [{name='resource',vault_url='x'}]", "plugins[0].vault_url", None),
    ("notes = ['x']", "notes is not", None),
    ("payload_request_size = 65", "payload_request_size", None),
    ("attestation_token_type = 'Jwk'", "attestation_token_type", None),
]


@pytest.mark.parametrize(("text", "place", "why"), REFUSED)
def test_what_is_not_possible_is_named(text: str, place: str, why: str | None) -> None:
    with pytest.raises((CallerError, ValueError)) as caught:
        load(text)
    message = str(caught.value)
    assert place in message
    if why:
        assert why in f"{message} {getattr(caught.value, 'hint', None)}"


def test_values_are_not_shown() -> None:
    for text in (
        "[storage_backend]\nstorage_type='Postgres'\nbackends.postgres.password = ['s3cret']",
        "plugins = [{name='resource',token='s3cret'}]",
        "[attestation_service]\napi_key = 's3cret'",
    ):
        with pytest.raises(ConfigError) as caught:
            load(text)
        assert "s3cret" not in f"{caught.value} {caught.value.hint}"

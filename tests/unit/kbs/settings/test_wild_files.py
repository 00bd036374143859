# SPDX-License-Identifier: Apache-2.0
"""Files as operators of Trustee have them: they start, and what has no effect is said."""

import tomllib

import pytest

from cocos.errors import ConfigError
from cocos.kbs.config import Settings

TOKEN = """
[attestation_service.attestation_token_broker.signer]
key_path = "/etc/kbs/token.key"
cert_path = "/etc/kbs/token.crt"
"""
RESTRICTED = f"""
[http_server]
sockets = ["0.0.0.0:8443"]
private_key = "/etc/kbs/https.key"
certificate = "/etc/kbs/https.crt"
worker_count = 2
[admin]
authorization_mode = "DenyAll"
[attestation_token]
attestation_token_type = "CoCo"
trusted_certs_paths = ["/etc/kbs/token.crt"]
[attestation_service]
type = "coco_as_builtin"
[attestation_service.attestation_token_config]
duration_min = 9
[attestation_service.rvps_config]
type = "BuiltIn"
[storage_backend]
storage_type = "LocalFs"
[storage_backend.backends.local_fs]
dir_path = "/var/lib/trustee"
[storage_backend.backends.local_json]
dir_path = "/var/lib/trustee/json"
[[plugins]]
name = "resource"
storage_backend_type = "kvstorage"
{TOKEN}
"""
ALL_IN_ONE = """
[http_server]
sockets = ["0.0.0.0:8080"]
insecure_http = true
[admin]
type = "DenyAll"
insecure_api = true
auth_public_key = "/etc/auth-secret/publicKey"
[attestation_token]
insecure_key = true
attestation_token_type = "CoCo"
[attestation_service]
type = "coco_as_builtin"
work_dir = "/opt/attestation-service"
policy_engine = "opa"
[attestation_service.attestation_token_broker]
type = "Ear"
duration_min = 7
policy_dir = "/opt/attestation-service/policies"
[attestation_service.attestation_token_config]
duration_min = 3
[attestation_service.rvps_config]
type = "BuiltIn"
[attestation_service.rvps_config.storage]
storage_type = "LocalJson"
[attestation_service.rvps_config.storage.backends.local_json]
file_dir_path = "/opt/reference-values"
[[plugins]]
name = "resource"
type = "LocalFs"
dir_path = "/opt/repository"
[policy_engine]
policy_path = "/opt/policy.rego"
"""
PERMISSIVE = """
[http_server]
sockets = ["0.0.0.0:8080"]
insecure_http = true
[admin]
authorization_mode = "DenyAll"
[attestation_service]
type = "coco_as_builtin"
timeout = 6
[attestation_service.rvps_config]
type = "BuiltIn"
storage_type = "LocalJson"
[attestation_service.verifier_config.snp_verifier]
vcek_sources = [{ type = "OfflineStore", path = "/certs" }, { type = "KDS" }]
[attestation_service.verifier_config.dcap_verifier]
collateral_service = "https://pccs.example/sgx/certification/v4/"
tcb_update_type = "standard"
[attestation_service.verifier_config.nvidia_verifier]
type = "Remote"
verifier_url = "https://nras.example"
[storage_backend]
storage_type = "LocalFs"
[storage_backend.backends.local_fs]
dir_path = "/var/lib/trustee"
[storage_backend.backends.local_json]
dir_path = "/var/lib/trustee/json"
[storage_backend.backends.postgres]
unheard_of = 1
[[plugins]]
name = "resource"
storage_backend_type = "kvstorage"
"""
REMOTE = """
session_storage_type = "LocalFs"
[http_server]
insecure_http = true
[attestation_token]
trusted_certs_paths = ["/etc/kbs/token.crt"]
[attestation_service]
type = "coco_as_grpc"
as_addr = "http://as:50004"
pool_size = 100
timeout = 30
[admin]
authorization_mode = "AuthenticatedAuthorization"
[admin.authentication.bearer_jwt]
identity_providers = [{ issuer = "Helm", public_key_uri = "/etc/kbs/admin.pub" }]
[admin.authorization.regex_acl]
acls = [{ role = "admin", allowed_endpoints = "^/kbs/.+$" }]
[storage_backend]
storage_type = "LocalFs"
[storage_backend.backends.local_fs]
dir_path = "/var/lib/trustee"
[[plugins]]
name = "resource"
storage_backend_type = "kvstorage"
"""


def load(text: str) -> Settings:
    return Settings(**tomllib.loads(text))


@pytest.mark.parametrize(
    ("text", "noted"),
    [
        (RESTRICTED, ["attestation_token.attestation_token_type", "backends.local_json", "worker"]),
        (ALL_IN_ONE, ["admin.insecure_api: DenyAll", "admin.auth_public_key: DenyAll", "policy_dir",
                      "rvps_config.storage"]),
        (PERMISSIVE, ["rvps_config.storage_type", "snp_verifier.vcek_sources", "verifier_url",
                      "dcap_verifier.collateral_service", "backends.postgres"]),
        (REMOTE, ["pool_size"]),
    ],
    ids=["restricted", "all-in-one", "permissive", "remote"],
)  # fmt: skip
def test_it_starts_and_says_what_has_no_effect(text: str, noted: list[str]) -> None:
    settings = load(text)
    settings.check()
    for word in noted:
        assert any(word in note for note in settings.notes), (word, settings.notes)


def test_the_lifetime_of_tokens_is_honoured_in_both_places() -> None:
    assert load(RESTRICTED).token_minutes == 9
    assert load(ALL_IN_ONE).token_minutes == 7


@pytest.mark.parametrize("decides", ["type = 'DenyAll'", "authorization_mode = 'DenyAll'"])
def test_the_type_decides_where_it_closes_a_door(decides: str) -> None:
    others = "insecure_api = true\nauth_public_key = 'k'\nroles = []\npersonas = []"
    settings = load(f"insecure_http = true\n[admin]\n{decides}\n{others}")
    settings.check()
    assert settings.deny_admin
    assert not settings.insecure_api
    assert not settings.auth_public_keys


def test_personas_count_and_nothing_beside_them() -> None:
    settings = load(
        "insecure_http = true\n[admin]\ntype = 'Simple'\ninsecure_api = true\n"
        "personas = [{ id = 'a', public_key_path = 'a.pub' }]"
    )
    settings.check()
    assert not settings.insecure_api
    assert list(settings.auth_public_keys) == ["a"]


def test_an_open_door_is_not_opened_beside_a_key() -> None:
    settings = load(
        "insecure_http = true\n[admin]\ntype = 'InsecureAllowAll'\nauth_public_key = 'a.pub'"
    )
    with pytest.raises(ConfigError, match="contradict each other"):
        settings.check()


def test_all_that_is_wrong_is_said_at_once_by_the_file_s_own_names() -> None:
    with pytest.raises(ConfigError) as caught:
        load("""
payload_request_size = 999
[http_server]
sokets = []
insecure_http = true
certificate = "a"
tls_profile = "old"
worker_count = "x"
[admin]
type = "Simpel"
[attestation_service]
timeout = 0
api_key = "s3cret"
[[plugins]]
name = "pkcs11"
[storage_backend]
storage_type = "Redis"
""")
    message = caught.value.message
    for place in (
        "payload_request_size: ",
        "http_server.sokets is not a setting",
        "did you mean sockets?",
        "http_server.insecure_http contradicts http_server.certificate",
        "http_server.tls_profile",
        "admin.type = 'Simpel'",
        "attestation_service.timeout: ",
        "attestation_service.api_key",
        "plugins[0].name",
        "storage_backend.storage_type",
        "nobody could administer",
    ):
        assert place in message
    assert "s3cret" not in message
    assert "--insecure-http contradicts" not in message


def test_what_another_server_appraises_by_is_told_to_that_one() -> None:
    settings = load(
        "insecure_http = true\ninsecure_api = true\nattestation = 'https://as:1'\n"
        "tpm_ek_ca = ['ca.pem']\ntpm_ek_allow = ['eks']"
    )
    with pytest.raises(ConfigError, match=r"tpm_ek_ca .* and tpm_ek_allow .*no effect") as caught:
        settings.check()
    assert "grpc-as" in (caught.value.hint or "")

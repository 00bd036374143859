# SPDX-License-Identifier: Apache-2.0
"""What a VM is told by way of init data."""

import tomllib

import pytest
import trustme

from cocos.manager.guest import guest_config, guest_url
from cocos.manager.plan import CreateRequest, make_plan
from cocos.wire.init_data import InitDocument

CA = trustme.CA()
LEAF = CA.issue_cert("agent.example")


def told(request: CreateRequest) -> tuple[dict[str, str], tuple[str, ...]]:
    config = guest_config("some-id", make_plan(request))
    return InitDocument.parse(config.text).data, config.rewritten


def test_loopback_becomes_the_hosts_address_and_that_is_said() -> None:
    data, rewritten = told(
        CreateRequest("http://localhost:7001", kbs_params="cc_kbc::http://127.0.0.1:8080/kbs")
    )
    assert 'AGENT_CVM_GRPC_URL="10.0.2.2:7001"\n' in data["agent.env"]
    assert tomllib.loads(data["aa.toml"]) == {
        "token_configs": {"kbs": {"url": "http://10.0.2.2:8080/kbs"}},
        "log": {"level": "info"},
        "eventlog_config": {"enable_eventlog": True},
    }
    assert len(rewritten) == 2
    assert "localhost:7001" in rewritten[0]


def test_what_the_kbs_is_known_by_stays_when_its_name_changes() -> None:
    pin = f"token-key={'A' * 43}"
    data, rewritten = told(CreateRequest("h:1", kbs_params=f"cc_kbc::http://localhost:80#{pin}"))
    kbs = tomllib.loads(data["aa.toml"])["token_configs"]["kbs"]
    assert kbs == {"url": f"http://10.0.2.2#{pin}"}
    assert any("the KBS of" in each for each in rewritten)


def test_other_names_stay() -> None:
    data, rewritten = told(
        CreateRequest("cvms.example:7001", kbs_params="cc_kbc::https://kbs.example")
    )
    assert 'AGENT_CVM_GRPC_URL="cvms.example:7001"\n' in data["agent.env"]
    assert tomllib.loads(data["aa.toml"])["token_configs"]["kbs"]["url"] == "https://kbs.example"
    assert rewritten == ()


def test_without_a_kbs_nothing_is_said_of_one() -> None:
    data, _ = told(CreateRequest("h:1"))
    assert "token_configs" not in data["aa.toml"]


def test_tls_files_are_members() -> None:
    data, _ = told(
        CreateRequest(
            "https://cvms.example:7001",
            server_ca=CA.cert_pem.bytes(),
            client_cert=LEAF.cert_chain_pems[0].bytes(),
            client_key=LEAF.private_key_pem.bytes(),
        )
    )
    assert data["agent-ca.pem"].encode() == CA.cert_pem.bytes()
    assert data["agent-cert.pem"].encode() == LEAF.cert_chain_pems[0].bytes()
    assert data["agent-key.pem"].encode() == LEAF.private_key_pem.bytes()


def test_registries_have_a_member_and_a_variable() -> None:
    data, _ = told(
        CreateRequest(
            "h:1",
            kbs_params="cc_kbc::http://kbs.example",
            registry_ca=CA.cert_pem.bytes(),
            registry_credentials="kbs://any.host/default/credential/registry",
        )
    )
    assert data["registry-ca.pem"].encode() == CA.cert_pem.bytes()
    variable = "AUTHENTICATED_REGISTRY_CREDENTIALS_URI"
    assert f'{variable}="kbs:///default/credential/registry"' in data["agent.env"]


def test_secrets_do_not_show_in_a_repr() -> None:
    config = guest_config("id", make_plan(CreateRequest("h:1", certs_token="hush-hush")))
    assert b"hush-hush" in config.text
    assert "hush-hush" not in repr(config)


def test_a_value_cannot_leave_its_quotes() -> None:
    data, _ = told(CreateRequest("h:1", certs_token='a"b\\c$d`e'))
    assert 'AGENT_CERTS_TOKEN="a\\"b\\\\c\\$d\\`e"\n' in data["agent.env"]


def test_the_same_request_gives_the_same_bytes() -> None:
    plan = make_plan(CreateRequest("h:1", certs_token="t", aws={"AWS_REGION": "r"}))
    assert guest_config("id", plan) == guest_config("id", plan)


def test_plain_http_is_for_the_hosts_registries_alone() -> None:
    data, _ = told(CreateRequest("h:1"))
    entries = tomllib.loads(data["registries.conf"])["registry"]
    assert {entry["prefix"] for entry in entries} == {"localhost", "127.0.0.1"}
    assert {(entry["location"], entry["insecure"]) for entry in entries} == {("10.0.2.2", True)}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost", "http://10.0.2.2"),
        ("http://LOCALHOST:1/a", "http://10.0.2.2:1/a"),
        ("http://[::1]:8080", "http://10.0.2.2:8080"),
        ("http://127.9.9.9:8080", "http://10.0.2.2:8080"),
        ("http://localhost.example:8080", "http://localhost.example:8080"),
        ("", ""),
    ],
)
def test_urls(url: str, expected: str) -> None:
    assert guest_url(url) == expected

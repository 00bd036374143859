# SPDX-License-Identifier: Apache-2.0
"""What each program of a local VM is told, and what it is not."""

import stat
from pathlib import Path

import pytest
import trustme

from cocos.manager.backends.local import lay_out, programs
from cocos.manager.plan import CreateRequest, VmPlan, make_plan

CA = trustme.CA()
LEAF = CA.issue_cert("agent.example")
HUSH = "hush-hush"


@pytest.fixture
def plan() -> VmPlan:
    return make_plan(
        CreateRequest(
            "https://cvms.example:7001",
            log_level="debug",
            kbs_params="cc_kbc::http://kbs.example:8080",
            server_ca=CA.cert_pem.bytes(),
            registry_ca=CA.cert_pem.bytes(),
            client_cert=LEAF.cert_chain_pems[0].bytes(),
            client_key=LEAF.private_key_pem.bytes(),
            certs_token=HUSH,
            aws={"AWS_SECRET_ACCESS_KEY": HUSH, "AWS_REGION": ""},
        )
    )


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_secrets_reach_the_agent_alone_and_no_command_line(tmp_path: Path, plan: VmPlan) -> None:
    attestation_agent, provider, agent = programs("id", plan, tmp_path)
    assert agent.env["AGENT_CERTS_TOKEN"] == agent.env["AWS_SECRET_ACCESS_KEY"] == HUSH
    assert "AWS_REGION" not in agent.env
    for program in (attestation_agent, provider):
        assert HUSH not in program.env.values()
    for program in (attestation_agent, provider, agent):
        assert HUSH not in repr(program)
        assert HUSH not in program.arguments


def test_only_the_agent_sees_configuration_and_work_folder(tmp_path: Path, plan: VmPlan) -> None:
    attestation_agent, provider, agent = programs("id", plan, tmp_path)
    for program in (attestation_agent, provider):
        assert dict(program.view.writable) == {Path("/run/cocos"): tmp_path / "run"}
        assert not program.view.readable
        assert program.view.cgroup is None
    assert agent.view.readable[Path("/etc/cocos")] == tmp_path / "etc"
    assert agent.view.writable[Path("/cocos")] == tmp_path / "work"
    assert agent.view.cgroup == "cocos-id"


def test_the_programs_find_each_other_by_sockets(tmp_path: Path, plan: VmPlan) -> None:
    attestation_agent, provider, agent = programs("id", plan, tmp_path)
    _, address, flag = attestation_agent.arguments
    assert flag == "--insecure-sample"
    assert address.startswith("unix:/run/cocos/")
    assert provider.env["COCOS_AA_ADDRESS"] == agent.env["COCOS_AA_ADDRESS"] == address
    lay_out(tmp_path, plan)
    assert provider.arguments[1] in (tmp_path / "etc" / "ocicrypt.json").read_text()
    for program in (attestation_agent, provider, agent):
        assert program.env["AA_KBC_PARAMS"] == "cc_kbc::http://kbs.example:8080"
        assert program.env["COCOS_LOG_LEVEL"] == "debug"
    assert agent.env["AGENT_CVM_GRPC_URL"] == "cvms.example:7001"
    assert agent.env["AGENT_CVM_ID"] == "id"


def test_certificates_lie_where_the_agent_looks(tmp_path: Path, plan: VmPlan) -> None:
    lay_out(tmp_path, plan)
    env = programs("id", plan, tmp_path)[2].env
    for variable, content in {
        "AGENT_CVM_GRPC_SERVER_CA_CERTS": plan.server_ca,
        "AGENT_CVM_GRPC_CLIENT_CERT": plan.client_cert,
        "AGENT_CVM_GRPC_CLIENT_KEY": plan.client_key,
        "EXTRA_ROOT_CERTIFICATES": plan.registry_ca,
    }.items():
        file = tmp_path / "etc" / Path(env[variable]).relative_to("/etc/cocos")
        assert file.read_bytes() == content
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_without_tls_there_is_nothing_of_it(tmp_path: Path) -> None:
    bare = make_plan(CreateRequest("h:1"))
    lay_out(tmp_path, bare)
    assert sorted(path.name for path in (tmp_path / "etc").iterdir()) == [
        "ocicrypt.json",
        "registries.conf",
    ]
    env = programs("id", bare, tmp_path)[2].env
    assert not [name for name in env if name.endswith(("_CERT", "_KEY", "_CERTS"))]
    assert "AA_KBC_PARAMS" not in env

# SPDX-License-Identifier: Apache-2.0
"""A CA file without a certificate is an error: it never means the system's CAs, or anybody."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from cocos.agent.config import AgentSettings
from cocos.attestation_service.config import ServerSettings
from cocos.cli.guest import attestation_agent, cocos_agent
from cocos.cli.kbs import grpc_as
from cocos.cli.kbs import remote as _kbs_remote
from cocos.cli.owner import agents as cocos_agents
from cocos.cvms import server as cvms
from cocos.cvms.config import CvmsSettings
from cocos.errors import ConfigError
from cocos.kbs.config import Settings
from cocos.manager import server as manager
from cocos.manager.config import ManagerConfig

PAIR = trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.bytes()

PLACES: dict[str, Callable[[Path, Path], object]] = {
    "cvms": lambda ca, pair: cvms.credentials(
        CvmsSettings(server_cert=pair, server_key=pair, client_ca=ca)
    ),
    "manager": lambda ca, pair: manager.credentials(
        ManagerConfig(server_cert=pair, server_key=pair, client_ca=ca)
    ),
    "grpc-as": lambda ca, pair: grpc_as._credentials(
        ServerSettings(certificate=pair, private_key=pair, client_ca=ca)
    ),
    "kbs": lambda ca, _: _kbs_remote._tls(Settings(insecure_http=True, attestation_ca=ca)),
    "cocos-agent": lambda ca, _: cocos_agent._tls(AgentSettings(cvms_server_ca=ca)),
    "cocos-cli": lambda ca, _: cocos_agents._client("https://h:1", ca, None, None),
    "attestation-agent": lambda ca, _: attestation_agent._ca(str(ca)),
}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("content", ["", "\n"])
def test_a_ca_file_without_a_certificate(tmp_path: Path, name: str, content: str) -> None:
    ca, pair = tmp_path / "ca.pem", tmp_path / "pair.pem"
    ca.write_text(content)
    pair.write_bytes(PAIR)
    with pytest.raises(ConfigError, match=r"ca\.pem, is not PEM"):
        PLACES[name](ca, pair)

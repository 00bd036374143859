# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest
from pydantic import ValidationError

from cocos.manager.config import ManagerConfig


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1"])
def test_loopback_needs_no_tls(host: str) -> None:
    assert ManagerConfig(grpc_host=host).grpc_port == 7020


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "host.example", "localhost.evil"])  # noqa: S104
def test_elsewhere_needs_client_certificates_or_an_insecure_word(host: str) -> None:
    with pytest.raises(ValidationError, match="anybody could start VMs"):
        ManagerConfig(grpc_host=host)
    pair = {"server_cert": Path("c"), "server_key": Path("k")}
    with pytest.raises(ValidationError, match="anybody could start VMs"):
        ManagerConfig.model_validate({"grpc_host": host, **pair})
    ManagerConfig.model_validate({"grpc_host": host, **pair, "client_ca": Path("ca")})
    ManagerConfig(grpc_host=host, insecure_api=True)


def test_addresses() -> None:
    config = ManagerConfig(grpc_host="::1", http_port=0)
    assert (config.grpc_address, config.http_address) == ("[::1]:7020", "localhost:0")


@pytest.mark.parametrize(
    ("text", "mebibytes"), [("2048M", 2048), ("2048", 2048), ("4G", 4096), (512, 512)]
)
def test_memory_as_qemu_writes_it(text: str | int, mebibytes: int) -> None:
    assert ManagerConfig.model_validate({"memory_mib": text}).memory_mib == mebibytes


@pytest.mark.parametrize("text", ["", "2T2", "-1", "64M", "2 giga", "1K"])
def test_memory_that_no_vm_can_have(text: str) -> None:
    with pytest.raises(ValidationError):
        ManagerConfig.model_validate({"memory_mib": text})

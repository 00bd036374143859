# SPDX-License-Identifier: Apache-2.0
"""What an untrusted host may put on the init data disk, and what not."""

from pathlib import Path

import pytest
import trustme

from cocos.errors import FormatError
from cocos.image import unpack
from cocos.manager.guest import guest_config
from cocos.manager.plan import CreateRequest, make_plan
from cocos.wire.init_data import build, to_disk

CA = trustme.CA()
LEAF = CA.issue_cert("agent.example")


def write(members: dict[str, str], folder: Path) -> None:
    unpack.unpack(to_disk(build(members)), folder)


def test_members_and_the_exact_text_become_private_files(tmp_path: Path) -> None:
    folder = tmp_path / "cocos"
    members = {"aa.toml": "[log]\n", "agent.env": 'AGENT_CVM_ID="a \\"b\\""\n'}
    write(members, folder)
    assert (folder / "initdata.toml").read_bytes() == build(members)
    for name, text in members.items():
        assert (folder / name).read_text() == text
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "initdata.toml", "sitecustomize.py", "", "."]
)
def test_other_names_are_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(FormatError, match="members"):
        write({"aa.toml": "", name: "x"}, tmp_path / "cocos")
    assert not (tmp_path / "cocos").exists()


@pytest.mark.parametrize(
    "line",
    [
        'LD_PRELOAD="/run/cocos/aa.toml"',
        'PATH="/run/cocos"',
        'PYTHONPATH="/run/cocos"',
        'COCOS_INSECURE_WITHOUT_CGROUPS="1"',
        'COCOS_AA_ADDRESS="10.0.2.2:50002"',
        'AGENT_CVM_ID="a" LD_PRELOAD="b"',
        "AGENT_CVM_ID='a'",
        'AGENT_CVM_ID="a\\',
        "; LD_PRELOAD=x",
    ],
)
def test_variables_that_would_give_the_host_a_hand_are_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(FormatError, match=r"may not set|is not NAME"):
        write({"agent.env": f'AGENT_LOG_LEVEL="info"\n{line}\n'}, tmp_path / "cocos")
    assert not (tmp_path / "cocos").exists()


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("untouched")
    folder = tmp_path / "cocos"
    folder.mkdir()
    (folder / "initdata.toml").symlink_to(target)
    with pytest.raises(OSError, match="symbolic"):
        write({"aa.toml": ""}, folder)
    assert target.read_text() == "untouched"


def test_more_than_init_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError):
        unpack.unpack(to_disk(build({"aa.toml": ""})) + b"more", tmp_path / "cocos")


def test_all_that_our_manager_says_is_accepted(tmp_path: Path) -> None:
    request = CreateRequest(
        "https://cvms.example:7001",
        log_level="debug",
        kbs_params="cc_kbc::http://127.0.0.1:8080",
        ca_url="https://ca.example",
        server_ca=CA.cert_pem.bytes(),
        client_cert=LEAF.cert_chain_pems[0].bytes(),
        client_key=LEAF.private_key_pem.bytes(),
        certs_token='with "quotes", $dollars and \\',
        aws={"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key", "AWS_REGION": "eu"},
    )
    text = guest_config("some-id", make_plan(request)).text
    unpack.unpack(to_disk(text), tmp_path / "cocos")
    assert (tmp_path / "cocos" / "agent-key.pem").exists()

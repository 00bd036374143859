# SPDX-License-Identifier: Apache-2.0
import json
import tomllib
from pathlib import Path

import pytest

from cocos.attestation_agent.config import ConfigFile, Settings
from cocos.cli._common import load_settings
from cocos.errors import ConfigError

FILE = """
[token_configs.kbs]
url = "https://kbs.example:8443/"
cert = "/etc/kbs.pem"
tee_key_algorithm = "RSA-OAEP-256"

[eventlog_config]
enable_eventlog = true
init_pcr = 14

[log]
level = "debug"
"""


def load(**members: object) -> Settings:
    return load_settings(Settings, members=members, flags={})


def test_nothing_insecure_by_default() -> None:
    settings = load()
    assert settings.attestation_sock == "127.0.0.1:50002"
    assert not settings.insecure_sample
    assert not settings.eventlog_config.enable_eventlog
    assert settings.kbs() is None


@pytest.mark.parametrize(
    "address", ["127.0.0.1:0", "127.3.2.1:50002", "[::1]:50002", "localhost:1", "unix:/run/aa.sock"]
)
def test_addresses_of_this_machine(address: str) -> None:
    assert load(attestation_sock=address).attestation_sock == address


@pytest.mark.parametrize(
    "address",
    [
        *["0.0.0.0:50002", "[::]:50002", "10.0.0.1:50002", "example.org:50002"],
        *["127.0.0.1:65536", "127.0.0.1:", "127.0.0.1:-1", "127.0.0.1:x", ":50002", "50002", ""],
    ],
)
def test_private_keys_are_not_offered_to_other_machines(address: str) -> None:
    with pytest.raises(ConfigError, match="attestation_sock"):
        load(attestation_sock=address)


def test_the_guest_components_file(tmp_path: Path) -> None:
    file = tmp_path / "aa.toml"
    file.write_text(FILE)
    members = dict(load_settings(ConfigFile, file=file, flags={}))
    settings = load(**members, aa_kbc_params="cc_kbc::https://kbs.example:8443")
    kbs = settings.kbs()
    assert kbs is not None
    assert (kbs.url, kbs.cert) == ("https://kbs.example:8443", "/etc/kbs.pem")
    assert kbs.tee_key_algorithm == "RSA-OAEP-256"
    assert settings.eventlog_config.init_pcr == 14
    assert settings.log.level == "debug"


KEY = "token-key=" + "A" * 43


@pytest.mark.parametrize(
    ("named", "params", "agree"),
    [
        ("http://kbs:8080", "cc_kbc::http://other:8080", False),
        ("http://kbs:8080", "cc_kbc::http://kbs:8081", False),
        ("http://kbs:8080", "offline_fs_kbc::null", False),
        ("http://kbs:8080", f"cc_kbc::http://kbs:8080#{KEY}", False),
        (f"http://kbs:8080#{KEY}", f"cc_kbc::http://kbs:8080#{KEY[:-1]}E", False),
        ("http://kbs:8080", "cc_kbc::http://KBS:8080/", True),
        (f"http://kbs:8080#{KEY}", "cc_kbc::http://kbs:8080", True),  # says less, not other
        ("http://kbs:8080", "cc_kbc::null", True),
    ],
)
def test_a_second_source_may_only_say_the_same(named: str, params: str, *, agree: bool) -> None:
    tables = {"kbs": {"url": named}}
    if agree:
        found = load(token_configs=tables, aa_kbc_params=params).kbs()
        assert found is not None
        assert found.url == named
    else:
        with pytest.raises(ConfigError, match="different"):
            load(token_configs=tables, aa_kbc_params=params)


def test_the_same_as_json_and_with_what_older_files_say(tmp_path: Path) -> None:
    members = tomllib.loads(FILE)
    members["eventlog_config"]["eventlog_algorithm"] = "sha384"
    file = tmp_path / "aa.json"
    file.write_text(json.dumps(members))
    found = load_settings(ConfigFile, file=file, flags={})
    assert found.token_configs.kbs is not None
    assert found.eventlog_config.eventlog_algorithm == "sha384"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        *[("[]", "not a JSON object"), ("{", "not JSON"), ("[" * 10**5, "not JSON")],
        ('{"log": {"level": "info", "level": "debug"}}', "stands twice"),
    ],
)
def test_a_file_that_is_no_settings_is_named(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "aa.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_settings(ConfigFile, file=file, flags={})


@pytest.mark.parametrize(
    "line",
    [
        'tpm = "swtpm:host=10.0.2.2"',
        'tpm_event_log = "/run/cocos/log"',
        'command_line = "/run/cocos/cmdline"',
        'aael_path = "/run/cocos/eventlog"',
        "insecure_sample = true",
    ],
)
def test_the_host_does_not_choose_whose_evidence_is_shown(tmp_path: Path, line: str) -> None:
    """The file is part of the init data in a VM."""
    file = tmp_path / "aa.toml"
    file.write_text(f"{line}\n{FILE}")
    with pytest.raises(ConfigError, match=line.partition(" ")[0]):
        load_settings(ConfigFile, file=file, flags={})


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "https://[fd00::1]:8080"])
def test_the_kbs_of_aa_kbc_params(url: str) -> None:
    kbs = load(aa_kbc_params=f"cc_kbc::{url}/").kbs()
    assert kbs is not None
    assert kbs.url == url


@pytest.mark.parametrize("params", ["offline_fs_kbc::null", "offline_fs_kbc::", "cc_kbc::null"])
def test_aa_kbc_params_may_name_no_kbs(params: str) -> None:
    assert load(aa_kbc_params=params).kbs() is None


@pytest.mark.parametrize(
    "params",
    ["http://x", "cc_kbc:http://x", "cc_kbc::a::b", "other::http://x", "cc_kbc", "cc_kbc::ftp://x"],
)
def test_other_aa_kbc_params_are_refused(params: str) -> None:
    with pytest.raises(ConfigError, match="aa_kbc_params"):
        load(aa_kbc_params=params)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("unknown", 1),
        ("token_configs", {"coco_as": {}}),
        ("token_configs", {"kbs": {"url": "http://x", "tee_key_algorithm": "RSA1_5"}}),
        ("eventlog_config", {"init_pcr": 24}),
        ("tpm_ak_handle", "0x40000001"),
        ("tpm_ak_handle", "handle"),
    ],
)
def test_what_we_cannot_do_is_refused_by_name(setting: str, value: object) -> None:
    with pytest.raises(ConfigError, match=setting):
        load(**{setting: value})


@pytest.mark.parametrize("text", ["0x81010002", "81010002"])
def test_handles_are_hexadecimal(text: str) -> None:
    assert load(tpm_ak_handle=text).tpm_ak_handle == 0x81010002

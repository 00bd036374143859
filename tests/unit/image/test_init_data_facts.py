# SPDX-License-Identifier: Apache-2.0
"""One fact, one source: what a policy reads of init data is what the programs go by.

The real unpacking, the real units and the real settings of each program, for every member and
every variable that init data may have.
"""

import asyncio
import hashlib
import re
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
import typer
from typer.testing import CliRunner

from cocos.attestation_service.annotate import init_claims, kbs_claims
from cocos.cli.guest import attestation_agent, coco_keyprovider, cocos_agent
from cocos.errors import FormatError
from cocos.image import unpack
from cocos.manager.guest import guest_config
from cocos.manager.plan import CreateRequest, make_plan
from cocos.wire.init_data import InitDocument, build, to_disk
from cocos.wire.kbs.address import KbsAddress
from cocos.wire.vm_init_data import CREDENTIALS, FOLDER, MEMBERS, VARIABLES

IMAGE = Path(unpack.__file__).parent / "guest"
UNITS = "usr/lib/systemd/system"
CA = trustme.CA()
LEAF = CA.issue_cert("agent.example")
PEM = CA.cert_pem.bytes().decode()
PIN = "token-key=" + "A" * 43
KBS = f"http://10.0.2.2:8080#{PIN}"
AA = f"""
[token_configs.kbs]
url = "{KBS}"
[token_configs.coco_as]
url = "https://as.example:8443"
[eventlog_config]
enable_eventlog = true
[log]
level = "warning"
"""
URI = "kbs:///default/credential/registry"
TOLD = {
    "aa.toml": AA,
    "agent.env": "".join(
        f'{name}="of \\"{name}\\" \\$x"\n'
        for name in sorted(VARIABLES - {CREDENTIALS, "AGENT_ONCE"})
    )
    + f'{CREDENTIALS}="{URI}"\nAGENT_ONCE="false"\n',
    "agent-ca.pem": PEM,
    "agent-cert.pem": LEAF.cert_chain_pems[0].bytes().decode(),
    "agent-key.pem": LEAF.private_key_pem.bytes().decode(),
    "registry-ca.pem": PEM,
    "registries.conf": '[[registry]]\nprefix = "localhost"\n',
    "authorized_keys": "ssh-ed25519 AAAA owner\n",
}


@dataclass
class Guest:
    """A VM after its init data was unpacked."""

    folder: Path
    members: dict[str, str]

    @classmethod
    def told(cls, folder: Path, members: dict[str, str]) -> "Guest":
        unpack.unpack(to_disk(build(members)), folder)
        return cls(folder, members)

    @property
    def claims(self) -> dict[str, Any]:
        """What a policy sees as ``init_data_claims``."""
        return init_claims(InitDocument.parse((self.folder / unpack.TEXT).read_bytes()))

    @property
    def kbs(self) -> dict[str, Any]:
        """What a policy sees as ``kbs``."""
        document = InitDocument.parse((self.folder / unpack.TEXT).read_bytes())
        return kbs_claims([], document, command_line="", all_known=True)

    def here(self, path: str) -> str:
        return path.replace(FOLDER, str(self.folder), 1)

    def unit(self, name: str, *, debug: bool = False) -> list[tuple[str, str]]:
        text = (IMAGE / ("debug" if debug else "root") / UNITS / f"{name}.service").read_text()
        return re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE)

    def environment(self, name: str) -> dict[str, str]:
        """As systemd gives it to a unit; a shell reads our form of it the same way."""
        found: dict[str, str] = {}
        unit = self.unit(name)
        for key, value in unit:
            if key == "Environment":
                found |= dict(each.split("=", 1) for each in shlex.split(value))
        for key, value in unit:
            if key == "EnvironmentFile":  # these win over Environment=
                place = value.removeprefix("-")
                file = self.here(place) if place.startswith(FOLDER) else f"{IMAGE}/root{place}"
                script = f"set -a; . {shlex.quote(file)}; exec env -0"
                shown = subprocess.run(
                    ["env", "-i", "sh", "-c", script], check=True, capture_output=True
                )
                lines = shown.stdout.decode().split("\0")
                found |= dict(line.split("=", 1) for line in lines if line)
        return {name: value for name, value in found.items() if name not in {"PWD", "_", "SHLVL"}}

    def settings(self, monkeypatch: pytest.MonkeyPatch, name: str, module: Any) -> Any:
        """What a program makes of its unit's command and environment."""
        command = next(value for key, value in self.unit(name) if key == "ExecStart")
        env = self.environment(name)
        words = [
            env.get(word[2:-1], word) if word[:2] == "${" else word for word in command.split()
        ]
        caught: list[Any] = []

        async def serve(settings: Any, *_: object, **__: object) -> None:
            caught.append(settings)

        monkeypatch.setattr(module, "_serve", serve)
        app: typer.Typer = module.app
        for known in ("AA_KBC_PARAMS", "COCOS_LOG_LEVEL", "AGENT_LOG_LEVEL", "RUST_LOG"):
            monkeypatch.delenv(known, raising=False)
        levels: list[str] = []
        monkeypatch.setattr(
            module.common, "configure_logs", lambda level, **_: levels.append(level)
        )
        result = CliRunner().invoke(
            app, [self.here(each) for each in words[1:]], env=env, catch_exceptions=False
        )
        assert result.exit_code == 0, result.output
        self.level = levels[0]
        return caught[0]


@dataclass
class Programs:
    """The settings of all programs of a guest."""

    guest: Guest
    attestation: Any
    provider: Any
    agent: Any
    levels: tuple[str, ...]
    environment: dict[str, str]

    @classmethod
    def of(cls, guest: Guest, monkeypatch: pytest.MonkeyPatch) -> "Programs":
        levels: list[str] = []
        found: list[Any] = []
        for name, module in (
            ("attestation-agent", attestation_agent),
            ("coco-keyprovider", coco_keyprovider),
            ("cocos-agent", cocos_agent),
        ):
            found.append(guest.settings(monkeypatch, name, module))
            levels.append(guest.level)
        attestation, provider, agent = found
        environment = guest.environment("cocos-agent")
        return cls(guest, attestation, provider, agent, tuple(levels), environment)

    def file(self, path: object) -> str:
        return Path(self.guest.here(str(path))).read_text()


def agent_config(told: Programs) -> None:
    claim, config = told.guest.claims["aa.toml"], told.attestation
    claimed = claim["token_configs"]["kbs"]["url"]
    assert claimed == str(config.kbs().address(None)) == told.provider.address == KBS
    (named,) = told.guest.kbs["named"]
    assert named["url"] == KbsAddress.parse(told.provider.address).url
    assert claim["token_configs"]["coco_as"]["url"] == config.token_configs.coco_as.url
    assert claim["eventlog_config"] == {"enable_eventlog": config.eventlog_config.enable_eventlog}
    assert {claim["log"]["level"]} == set(told.levels)


def text_at(name: str, setting: str) -> Callable[[Programs], None]:
    def check(told: Programs) -> None:
        used = told.file(getattr(told.agent, setting))
        claim = told.guest.claims[name]
        digest = hashlib.sha256(used.encode()).hexdigest()
        assert claim in {used, f"sha256:{digest}"}
        assert used == told.guest.members[name]

    return check


def variable(name: str, setting: str | None = None) -> Callable[[Programs], None]:
    def check(told: Programs) -> None:
        used = told.environment[name]
        claim = told.guest.claims["agent.env"][name]
        assert claim in {used, f"sha256:{hashlib.sha256(used.encode()).hexdigest()}"}
        assert used == (URI if name == CREDENTIALS else f'of "{name}" $x')
        if setting is not None:
            assert getattr(told.agent, setting) == used

    return check


def stays(told: Programs) -> None:
    assert told.guest.claims["agent.env"]["AGENT_ONCE"] == told.environment["AGENT_ONCE"] == "false"
    assert told.agent.once is False


def environment(told: Programs) -> None:
    assert told.guest.claims["agent.env"].keys() == VARIABLES
    derived = {each for each in told.environment if each in told.guest.claims["agent.env"]}
    assert derived == VARIABLES


def keys_of_people(told: Programs) -> None:
    command = dict(told.guest.unit("cocos-debug-ssh", debug=True))["ExecStart"].split()
    folder = command[command.index("-D") + 1]
    assert told.guest.claims["authorized_keys"] == told.file(f"{folder}/authorized_keys")


FACTS: dict[str, Callable[[Programs], None]] = {
    "aa.toml": agent_config,
    "agent.env": environment,
    "agent-ca.pem": text_at("agent-ca.pem", "cvms_server_ca"),
    "agent-cert.pem": text_at("agent-cert.pem", "cvms_client_cert"),
    "agent-key.pem": text_at("agent-key.pem", "cvms_client_key"),
    "registries.conf": text_at("registries.conf", "registries"),
    "registry-ca.pem": text_at("registry-ca.pem", "extra_root_certificates"),
    CREDENTIALS: variable(CREDENTIALS, "authenticated_registry_credentials_uri"),
    "authorized_keys": keys_of_people,
    "AGENT_CERTS_TOKEN": variable("AGENT_CERTS_TOKEN"),
    "AGENT_CVM_CA_URL": variable("AGENT_CVM_CA_URL"),
    "AGENT_CVM_GRPC_URL": variable("AGENT_CVM_GRPC_URL", "cvms_url"),
    "AGENT_CVM_ID": variable("AGENT_CVM_ID", "cvm_id"),
    "AGENT_ONCE": stays,
    "AWS_ACCESS_KEY_ID": variable("AWS_ACCESS_KEY_ID"),
    "AWS_ENDPOINT_URL": variable("AWS_ENDPOINT_URL"),
    "AWS_REGION": variable("AWS_REGION"),
    "AWS_SECRET_ACCESS_KEY": variable("AWS_SECRET_ACCESS_KEY"),
}
"""Member or variable → a check that its claim is what is used. A new one needs its own."""


@pytest.mark.parametrize("fact", sorted(MEMBERS | VARIABLES))
def test_what_a_policy_reads_is_what_the_programs_go_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fact: str
) -> None:
    assert TOLD.keys() == MEMBERS
    FACTS[fact](Programs.of(Guest.told(tmp_path / "cocos", TOLD), monkeypatch))


def test_nothing_but_what_is_told_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a member there is no fact: no default of a program takes its place."""
    told = Programs.of(
        Guest.told(tmp_path / "cocos", {"aa.toml": "", "agent.env": ""}), monkeypatch
    )
    assert told.attestation.kbs() is None
    assert told.provider.address is None
    assert told.agent.cvms_server_ca is None
    assert told.agent.registries is None
    assert told.agent.registry_credentials is None
    assert told.agent.extra_root_certificates is None
    assert told.agent.once  # the image's own way, where nobody asks for the other
    assert told.guest.kbs == {"authenticated": False, "by": [], "named": []}


@pytest.mark.parametrize(
    ("url", "cert", "by"),
    [
        (KBS, None, "token-key"),
        ("https://kbs.example#cert-sha256=" + "a" * 64, None, "cert-sha256"),
        ("https://kbs.example", PEM, "ca"),
        ("https://kbs.example", None, "public-cas"),
        ("http://kbs.example", None, "nothing"),
    ],
)
def test_what_the_kbs_is_known_by_is_what_the_programs_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, cert: str | None, by: str
) -> None:
    lines = f'[token_configs.kbs]\nurl = "{url}"\n' + (f"cert = '''{cert}'''\n" if cert else "")
    guest = Guest.told(tmp_path / "cocos", {"aa.toml": lines, "agent.env": ""})
    told = Programs.of(guest, monkeypatch)
    config = told.attestation.kbs()
    used = {str(config.address(config.cert)), told.provider.address}
    assert len(used) == 1
    address = KbsAddress.parse(used.pop())
    assert guest.kbs == {
        "authenticated": by != "nothing",
        "by": [by],
        "named": [address.claim()],
    }
    assert address.by == by


# --- a second source is refused -----------------------------------------------------------

OTHER = "http://10.0.2.9:8080"


@pytest.mark.parametrize(
    "line",
    [
        f'AA_KBC_PARAMS="cc_kbc::{OTHER}"',
        f'AA_KBC_PARAMS="cc_kbc::{KBS}"',  # the same: a policy would have to look at two places
        *(f'{name}="x"' for name in ("AGENT_LOG_LEVEL", "COCOS_LOG_LEVEL", "RUST_LOG")),
        'AGENT_CVM_GRPC_SERVER_CA_CERTS="/run/cocos/agent-cert.pem"',
        'AGENT_CVM_GRPC_CLIENT_CERT="/run/cocos/agent-ca.pem"',
        'AGENT_CVM_GRPC_CLIENT_KEY="/run/cocos/agent-ca.pem"',
        'CONTAINERS_REGISTRIES_CONF="/run/cocos/authorized_keys"',
        'EXTRA_ROOT_CERTIFICATES="/run/cocos/agent-ca.pem"',
        'REGISTRY_AUTH_FILE="/run/cocos/agent-ca.pem"',
        f'{CREDENTIALS}="kbs://other.example/default/credential/registry"',
        f'{CREDENTIALS}="/run/cocos/agent-ca.pem"',
        'REGISTRY_AUTH_FILE="/run/cocos/authorized_keys"',
        'OCICRYPT_KEYPROVIDER_CONFIG="/run/cocos/authorized_keys"',
        'OFFLINE_FS_KBC_EXTRA_FILE_PATH="/run/cocos/authorized_keys"',
        'COCOS_AA_ADDRESS="10.0.2.2:50002"',
        *(f'AGENT_ONCE="{word}"' for word in ("true", "False", "0", "no", "")),
        *(f'{name}="http://10.0.2.2:3128"' for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")),
        *(f'{name}="/run/cocos/agent-ca.pem"' for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")),
        'https_proxy="http://10.0.2.2:3128"',
        'AGENT_CVM_ID="a"\nAGENT_CVM_ID="b"',  # the later line would win
        'AGENT_CVM_ID="a"\n\nAGENT_CVM_ID="a"',
        ' AGENT_CVM_ID="a"',
        'export AGENT_CVM_ID="a"',
        "AGENT_CVM_ID=a",
        'AGENT_CVM_ID="a" AGENT_CVM_ID="b"',
        'AGENT_CVM_ID="a"b"',
        'AGENT_CVM_ID="a\\\nb"',
        'AGENT_CVM_ID="a\rb"',
        'AGENT_CVM_ID="a"\r',
        'AGENT_CVM_ID="a$b"',
        'AGENT_CVM_ID="a`b"',
        'AGENT_CVM_ID="a\\b"',
        '# comment\nAGENT_CVM_ID="a"',
        '\ufeffAGENT_CVM_ID="a"',
    ],
)
def test_lines_of_the_environment_that_are_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(FormatError):
        Guest.told(tmp_path / "cocos", {**TOLD, "agent.env": f"{line}\n"})
    assert not (tmp_path / "cocos").exists()


@pytest.mark.parametrize(
    "text",
    [
        f'[token_configs.kbs]\nurl = "{KBS}"\nurl = "{OTHER}"\n',
        f'[token_configs.kbs]\nurl = "{KBS}"\n[token_configs.kbs]\nurl = "{OTHER}"\n',
        f'token_configs.kbs.url = "{KBS}"\n[token_configs.kbs]\nurl = "{OTHER}"\n',
        f'[token_configs.kbs]\nurl = "{KBS}"\n"url" = "{OTHER}"\n',
        f'aa_kbc_params = "cc_kbc::{OTHER}"\n[token_configs.kbs]\nurl = "{KBS}"\n',
        '[token_configs.kbs]\nurl = "https://kbs"\ncert = "/run/cocos/agent-ca.pem"\n',
        '[token_configs.coco_as]\nurl = "https://as"\ncert = "/run/cocos/agent-ca.pem"\n',
        f"[token_configs.kbs]\nurl = \"{KBS}\"\ncert = '''{PEM}'''\n",
        f"[token_configs.kbs]\nurl = \"http://kbs\"\ncert = '''{PEM}'''\n",
        *(
            f'[token_configs.kbs]\nurl = "{url}"\n'
            for url in (
                *("http://a@b", "http://a:b@10.0.2.2:8080", "http://KBS.example", "HTTP://kbs"),
                *(
                    "http://kbs/",
                    "http://kbs//a",
                    "http://kbs:80",
                    "http://kbs/../a",
                    "http://kbs?x",
                ),
                *("cc_kbc::http://a", "http://a::http://b", "http://a http://b", "http://127.1"),
                *("http://0x7f.0.0.1", "http://2130706433", "http://kbs。example", "http://kbs%2f"),
                *(
                    "http://[::0:1]",
                    "http://[fe80::1%25eth0]",
                    "http://kbs\\\\@other",
                    "",
                    "ftp://a",
                ),
                *("http://kbs:0", "http://kbs:99999", "http://kbs#", f"http://kbs#x={'A' * 43}"),
                *(f"http://kbs#{PIN}&{PIN}", f"http://kbs#{PIN}&cert-sha256={'a' * 64}"),
                *(f"http://kbs#cert-sha256={'a' * 64}", f"https://kbs#cert-sha256={'A' * 64}"),
                *(
                    f"http://kbs#{PIN}#{PIN}",
                    f"http://kbs#{PIN}=",
                    "https://kbs#ca=",
                    "https://kbs#ca=AA==",
                ),
            )
        ),
        "[token_configs]\nkbs = 1\n",
        'token_configs = "x"\n',
        '[log]\nlevel = "trace"\n',
        "log = 1\n",
        "= =",
    ],
)
def test_agent_configurations_that_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(FormatError):
        Guest.told(tmp_path / "cocos", {**TOLD, "aa.toml": text})
    assert not (tmp_path / "cocos").exists()


@pytest.mark.parametrize("name", ["cdh.toml", "kbs.toml", "policy.rego", "agent.toml", "AA.toml"])
def test_members_that_no_program_reads_state_nothing(tmp_path: Path, name: str) -> None:
    members = {**TOLD, name: f'[kbc]\nname = "cc_kbc"\nurl = "{OTHER}"\n'}
    with pytest.raises(FormatError, match="members"):
        Guest.told(tmp_path / "cocos", members)


def test_a_member_twice_is_no_toml(tmp_path: Path) -> None:
    text = build(TOLD) + f"'aa.toml' = '''\n[token_configs.kbs]\nurl = \"{OTHER}\"\n'''\n".encode()
    with pytest.raises(FormatError, match="TOML"):
        unpack.unpack(to_disk(text), tmp_path / "cocos")


def test_the_command_line_names_no_kbs(tmp_path: Path) -> None:
    disk = to_disk(build(TOLD))
    line = f"quiet agent.aa_kbc_params=cc_kbc::{KBS}\n"
    with pytest.raises(FormatError, match="command line"):
        unpack.unpack(disk, tmp_path / "cocos", command_line=line)
    unpack.unpack(disk, tmp_path / "cocos", command_line="quiet\n")


def test_our_manager_says_nothing_twice() -> None:
    """What is composed is checked by the image's own rules, before a VM boots in vain."""
    plan = make_plan(CreateRequest("h:1", kbs_params=f"cc_kbc::{KBS}"))
    for variables in ({"AA_KBC_PARAMS": f"cc_kbc::{OTHER}"}, {"COCOS_LOG_LEVEL": "debug"}):
        changed = type(plan)(
            **{name: getattr(plan, name) for name in plan.__slots__} | {"variables": variables}
        )
        with pytest.raises(FormatError, match="may not set"):
            guest_config("id", changed)


async def test_all_of_a_request_reaches_the_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = CreateRequest(
        "https://cvms.example:7001",
        log_level="debug",
        kbs_params=f"cc_kbc::http://localhost:8080#{PIN}",
        server_ca=CA.cert_pem.bytes(),
        client_cert=LEAF.cert_chain_pems[0].bytes(),
        client_key=LEAF.private_key_pem.bytes(),
        certs_token='with "quotes", $dollars, `ticks` and \\',
    )
    text = guest_config("some-id", make_plan(request)).text
    unpack.unpack(to_disk(text), tmp_path / "cocos")
    guest = Guest(tmp_path / "cocos", InitDocument.parse(text).data)
    told = await asyncio.to_thread(Programs.of, guest, monkeypatch)
    assert told.provider.address == KBS
    assert told.levels == ("debug",) * 3
    assert told.agent.cvm_id == "some-id"
    assert told.environment["AGENT_CERTS_TOKEN"] == request.certs_token
    assert guest.kbs["authenticated"] is True

# SPDX-License-Identifier: Apache-2.0
"""kbs-client as a program, against the real KBS."""

import base64
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import trustme
from _kbs import admin_pair
from _programs import running
from _trustee import Trustee, serving

from cocos.host import process

pytestmark = pytest.mark.integration

PROGRAM = Path(sys.executable).with_name("kbs-client")
PATH = "default/key/algo-key"
SECRET = bytes(range(32))
BASE64 = base64.b64encode(SECRET).decode() + "\n"


@dataclass
class Desk:
    """An admin's folder with keys, and the URL of the KBS."""

    folder: Path
    url: str = ""

    @property
    def key(self) -> Path:
        return self.folder / "admin.key"

    async def run(
        self, *arguments: str | Path, env: dict[str, str] | None = None
    ) -> process.Completed:
        argv = [PROGRAM, "--url", self.url, *arguments]
        return await process.run(argv, check=False, timeout=60, env=env)

    async def output(self, *arguments: str | Path, env: dict[str, str] | None = None) -> str:
        done = await self.run(*arguments, env=env)
        assert done.exit_status == 0, done.stderr.decode()
        return done.stdout.decode()

    async def config(self, *arguments: str | Path) -> str:
        return await self.output("config", "--auth-private-key", self.key, *arguments)

    async def get(self) -> process.Completed:
        return await self.run("get-resource", "--path", PATH, "--insecure-sample")

    def flags(self) -> tuple[str | Path, ...]:
        return (
            *("--socket", "127.0.0.1:0"),
            *("--storage", self.folder / "kbs"),
            *("--auth-public-key", self.folder / "admin.pub"),
        )


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    private, public = admin_pair()
    (tmp_path / "admin.key").write_bytes(private)
    (tmp_path / "admin.pub").write_bytes(public)
    (tmp_path / "secret").write_bytes(SECRET)
    return Desk(tmp_path)


@pytest.fixture
async def kbs(desk: Desk) -> AsyncIterator[Desk]:
    """A KBS that counts sample evidence and knows one resource."""
    flags = desk.flags()
    async with running("kbs", "--insecure-http", "--insecure-allow-sample", *flags) as program:
        desk.url = program.address
        file = desk.folder / "secret"
        assert "stored" in await desk.config(
            "set-resource", "--path", PATH, "--resource-file", file
        )
        yield desk


async def test_a_resource_comes_as_base64(kbs: Desk) -> None:
    assert (await kbs.get()).stdout.decode() == BASE64
    shown = await kbs.output("get-resource", "--path", PATH, "--insecure-sample", "--json")
    assert json.loads(shown) == {"path": PATH, "resource": BASE64.strip()}


async def test_attest_prints_the_token(kbs: Desk) -> None:
    token = (await kbs.output("attest", "--insecure-sample")).strip()
    assert token.count(".") == 2
    assert json.loads(await kbs.output("attest", "--insecure-sample", "--json"))["token"]


async def test_a_sample_device_shows_in_the_token(kbs: Desk) -> None:
    for env, submods in ({}, ["cpu0"]), ({"ENABLE_SAMPLE_DEVICE": ""}, ["cpu0", "gpu0"]):
        token = await kbs.output("attest", "--insecure-sample", env=env)
        payload = token.split(".")[1]
        assert sorted(json.loads(base64.urlsafe_b64decode(payload + "=="))["submods"]) == submods


async def test_an_old_kbs_is_spoken_to_only_if_asked(desk: Desk) -> None:
    with serving(Trustee("0.1.1", resources={PATH: SECRET})) as desk.url:
        refused = await desk.get()
        assert refused.exit_status != 0
        assert "--oldest-protocol 0.1.1" in refused.stderr.decode()
        words = ("--insecure-sample", "--oldest-protocol", "0.1.1")
        assert await desk.output("get-resource", "--path", PATH, *words) == BASE64
        assert (await desk.output("attest", *words)).count(".") == 2


async def test_without_a_tee_the_flag_is_named(kbs: Desk) -> None:
    for command in (["attest"], ["get-resource", "--path", PATH]):
        done = await kbs.run(*command)
        assert done.exit_status == 69
        assert "--insecure-sample" in done.stderr.decode()
        assert done.stdout == b""


async def test_an_admin_token_works_for_plain_http(kbs: Desk) -> None:
    token = (await kbs.output("admin-token", "--auth-private-key", kbs.key)).strip()
    async with httpx.AsyncClient(trust_env=False) as client:
        url = f"{kbs.url}/kbs/v0/resource/{PATH}"
        forged = await client.post(url, content=b"x", headers={"Authorization": "Bearer e30="})
        assert forged.status_code == 401
        stored = await client.post(
            url, content=b"new", headers={"Authorization": f"Bearer {token}"}
        )
        assert stored.status_code == 200
    assert base64.b64decode((await kbs.get()).stdout) == b"new"


async def test_an_admin_token_file_works(kbs: Desk) -> None:
    file = kbs.folder / "token"
    file.write_text(await kbs.output("admin-token", "--auth-private-key", kbs.key))
    await kbs.output("config", "--admin-token-file", file, "delete-resource", "--path", PATH)
    done = await kbs.get()
    assert done.exit_status == 66
    assert "there is no resource" in done.stderr.decode()


async def test_without_a_token_nothing_changes(kbs: Desk) -> None:
    done = await kbs.run("config", "delete-resource", "--path", PATH)
    assert done.exit_status == 77
    assert "kbs-client admin-token" in done.stderr.decode()
    assert (await kbs.get()).exit_status == 0


@pytest.mark.parametrize(
    ("flag", "status"),
    [("--deny-all", 77), ("--allow-all", 0), ("--affirming", 0), ("--default", 0)],
)
async def test_ready_made_policies(kbs: Desk, flag: str, status: int) -> None:
    await kbs.config("set-resource-policy", flag)
    assert (await kbs.get()).exit_status == status


async def test_allow_all_releases_what_affirming_holds_back(kbs: Desk) -> None:
    warning = kbs.folder / "warning.rego"
    warning.write_text('package policy\nimport rego.v1\ntrust_claims := {"executables": 33}\n')
    await kbs.config("set-attestation-policy", "--type", "rego", "--policy-file", warning)
    assert (await kbs.get()).exit_status == 77
    await kbs.config("set-resource-policy", "--allow-all")
    assert (await kbs.get()).exit_status == 0
    await kbs.config("set-resource-policy", "--default")
    assert (await kbs.get()).exit_status == 77


async def test_a_policy_file(kbs: Desk) -> None:
    policy = kbs.folder / "policy.rego"
    policy.write_text(
        "package policy\nimport rego.v1\ndefault allow := false\n"
        'allow if data["resource-path"][2] == "algo-key"\n'
    )
    await kbs.config("set-resource-policy", "--policy-file", policy)
    assert (await kbs.get()).exit_status == 0
    policy.write_text("this is not Rego")
    done = await kbs.run(
        *("config", "--auth-private-key", kbs.key),
        *("set-resource-policy", "--policy-file", policy),
    )
    assert done.exit_status == 2


@pytest.mark.parametrize(
    "flags", [[], ["--allow-all", "--deny-all"], ["--default", "--policy-file", __file__]]
)
async def test_exactly_one_policy_must_be_chosen(desk: Desk, flags: list[str]) -> None:
    desk.url = "http://127.0.0.1:9"
    done = await desk.run("config", "set-resource-policy", *flags)
    assert done.exit_status == 2
    assert "choose one policy" in done.stderr.decode()


@pytest.mark.parametrize(
    ("flags", "value", "stored"),
    [
        ([], "1", ["1"]),
        (["--as-integer"], "7", [7]),
        (["--as-bool"], "true", [True]),
        (["--as-integer", "--as-single-value"], "7", 7),
    ],
)
async def test_reference_values(kbs: Desk, flags: list[str], value: str, stored: object) -> None:
    await kbs.config("set-sample-reference-value", "svn", value, *flags)
    assert json.loads(await kbs.config("get-reference-value", "--id", "svn")) == stored


async def test_reference_values_of_an_image(kbs: Desk) -> None:
    file = kbs.folder / "reference-values.json"
    values = {"tpm_pcr04": ["aa"], "tpm_pcr11": ["bb"]}
    file.write_text(json.dumps({**values, "inputs": {"kernel": "6.12"}}))
    said = await kbs.config("set-reference-values", file)
    assert said == "registered tpm_pcr04, tpm_pcr11\n"

    async def known(name: str) -> object:
        return json.loads(await kbs.config("get-reference-value", "--id", name))

    assert {name: await known(name) for name in values} == values
    gone = ["config", "--auth-private-key", str(kbs.key), "get-reference-value", "--id", "inputs"]
    assert (await kbs.run(*gone)).exit_status == 66
    file.write_text(json.dumps({"tpm_pcr11": ["bb", "cc"], "tpm_pcr12": ["00"]}))
    await kbs.config("set-reference-values", file, "--add")
    assert await known("tpm_pcr11") == ["bb", "cc"]
    assert await known("tpm_pcr12") == ["00"]
    file.write_text(json.dumps({"tpm_pcr11": ["dd"]}))
    await kbs.config("set-reference-values", file)
    assert await known("tpm_pcr11") == ["dd"]
    assert await known("tpm_pcr04") == ["aa"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "malformed"),
        ("[]", "has no reference values"),
        ('{"inputs": {}}', "has no reference values"),
        ('{"svn": {"value": 1, "expiration": "x"}}', "svn: the expiration"),
    ],
)
async def test_a_file_without_reference_values(desk: Desk, text: str, words: str) -> None:
    desk.url = "http://127.0.0.1:9"
    file = desk.folder / "values"
    file.write_text(text)
    done = await desk.run("config", "set-reference-values", file)
    assert done.exit_status == 65
    assert words in done.stderr.decode()


async def test_a_denial_is_explained_in_lines_and_as_json(desk: Desk) -> None:
    async with running("kbs", "--insecure-http", *desk.flags()) as program:
        desk.url = program.address
        done = await desk.get()
        assert done.exit_status == 77
        said = done.stderr.decode()
        assert "--insecure-allow-sample" in said
        denial = said.partition("kbs-client explain ")[2].split()[0]
        key = ("--auth-private-key", desk.key)
        found = json.loads(await desk.output("explain", denial, *key, "--json"))
        lines = (await desk.output("explain", denial, *key)).splitlines()
        unknown = await desk.run("explain", "0" * 16, *key)
        stranger = await desk.run("explain", denial)
    assert found["id"] == denial
    first = found["findings"][0]
    assert first["check"]
    assert first["problem"]
    # Nothing is cut or wrapped, on a pipe of no width, either.
    assert f"{first['check']}: {first['problem']}" in lines
    assert unknown.exit_status == 66
    assert stranger.exit_status == 77


async def test_only_a_known_certificate_is_trusted(desk: Desk) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    files = {
        "--certificate": b"".join(blob.bytes() for blob in certificate.cert_chain_pems),
        "--private-key": certificate.private_key_pem.bytes(),
    }
    flags: list[str | Path] = list(desk.flags())
    for name, content in files.items():
        (desk.folder / name).write_bytes(content)
        flags += [name, desk.folder / name]
    right = desk.folder / "ca.pem"
    right.write_bytes(authority.cert_pem.bytes())
    wrong = desk.folder / "other.pem"
    wrong.write_bytes(trustme.CA().cert_pem.bytes())
    async with running("kbs", *flags, "--insecure-allow-sample") as program:
        desk.url = program.address
        assert desk.url.startswith("https://")
        attest = ("attest", "--insecure-sample")
        by_system = await desk.run(*attest)
        by_wrong = await desk.run("--cert-file", wrong, *attest)
        by_right = await desk.run("--kbs-ca", right, *attest)
        # Plain HTTP to a port that speaks TLS.
        desk.url = desk.url.replace("https:", "http:")
        in_clear = await desk.run(*attest)
    assert by_system.exit_status == by_wrong.exit_status == 69
    assert "not trusted" in by_system.stderr.decode()
    assert "--kbs-ca" in by_system.stderr.decode()
    assert by_right.exit_status == 0, by_right.stderr
    assert in_clear.exit_status in {69, 76}
    assert program.address.replace("https:", "http:") in in_clear.stderr.decode()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["attest", "--insecure-sample"], 69, "http://127.0.0.1:9 cannot be reached"),
        (["get-resource", "--path", "a/b", "--insecure-sample"], 2, "repository/type/tag"),
        (["get-resource", "--path", "../../x", "--insecure-sample"], 2, "repository/type/tag"),
        (["admin-token", "--auth-private-key", "/nonexistent"], 66, "/nonexistent"),
        (["admin-token", "--auth-private-key", "admin.key", "--lifetime", "ever"], 2, "30m"),
        (["admin-token", "--auth-private-key", "admin.pub"], 78, "private key"),
    ],
)
async def test_what_is_wrong_is_named(
    desk: Desk, arguments: list[str], status: int, words: str
) -> None:
    found = [str(desk.folder / text) if text.startswith("admin.") else text for text in arguments]
    done = await process.run(
        [PROGRAM, "--url", "http://127.0.0.1:9", *found], check=False, timeout=60
    )
    assert done.exit_status == status, done.stderr
    assert words in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    assert done.stdout == b""

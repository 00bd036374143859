# SPDX-License-Identifier: Apache-2.0
"""kbs-client as a program: what administrators list and delete, and passports of guests."""

import base64
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from _kbs import admin_pair
from _programs import running

from cocos.crypto.tee_key import TeeKeyPair
from cocos.host import process
from cocos.policy import defaults

pytestmark = pytest.mark.integration

PROGRAM = Path(sys.executable).with_name("kbs-client")
SECRET = bytes(range(32))
INIT_DATA = 'version = "0.1.0"\nalgorithm = "sha256"\n[data]\n"a.toml" = "b = 1"\n'


class Desk:
    """A folder with files, and the environment that says where the KBS is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"HOME": str(folder)}
        private, public = admin_pair()
        self.write("admin.key", private)
        self.write("admin.pub", public)
        self.write("secret", SECRET)

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    async def run(self, *arguments: str | Path) -> process.Completed:
        return await process.run(
            [PROGRAM, *arguments],
            check=False,
            timeout=60,
            env=self.environment,
            cwd=self.folder,
        )

    async def output(self, *arguments: str | Path) -> str:
        done = await self.run(*arguments)
        assert done.exit_status == 0, done.stderr.decode()
        return done.stdout.decode()

    async def config(self, *arguments: str | Path) -> str:
        return await self.output("config", *arguments)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path)
    flags = (
        *("--insecure-http", "--insecure-allow-sample", "--socket", "127.0.0.1:0"),
        *("--storage", "memory:", "--auth-public-key", tmp_path / "admin.pub"),
    )
    async with running("kbs", *flags) as program:
        desk.environment["KBS_URL"] = program.address
        desk.environment["KBS_AUTH_PRIVATE_KEY"] = str(tmp_path / "admin.key")
        yield desk


async def test_lists_and_deletions(desk: Desk) -> None:
    for path in ("default/key/1", "default/key/2", "other/key/1"):
        await desk.config("set-resource", "--path", path, "--resource-file", desk.folder / "secret")
    assert await desk.config("list-resources", "--prefix", "default/") == (
        "default/key/1\ndefault/key/2\n"
    )
    assert json.loads(await desk.config("list-resources", "--json")) == [
        "default/key/1",
        "default/key/2",
        "other/key/1",
    ]
    await desk.config("delete-resource", "--path", "other/key/1")

    assert await desk.config("get-resource-policy") == defaults.text(defaults.RESOURCE)
    await desk.config("set-resource-policy", "--deny-all", "--id", "resource/default")
    ids = ["resource-policy", "resource/default"]
    assert await desk.config("list-resource-policies") == "\n".join(ids) + "\n"
    text = await desk.config("get-resource-policy", "--id", "resource/default")
    again = desk.write("again.rego", text)
    await desk.config("set-resource-policy", "--policy-file", again, "--id", "resource/default")
    assert await desk.config("get-resource-policy", "--id", "resource/default") == text
    said = await desk.run("config", "delete-resource-policy", "--id", "resource/default", "--json")
    warning = "resource-policy decides now on what resource/default decided on"
    deleted = json.loads(said.stdout)
    assert deleted["id"] == "resource/default"
    assert deleted["warnings"][0].startswith(warning)
    assert f"warning: {warning}" in said.stderr.decode()
    gone = await desk.run("config", "get-resource-policy", "--id", "resource/default")
    assert gone.exit_status == 66
    assert "other/key/1" not in await desk.config("list-resources")

    text = await desk.config("get-attestation-policy")
    assert text == defaults.text("default_cpu")
    mine = desk.write("mine.rego", text)
    stored = await desk.run(
        "config", "set-attestation-policy", "--policy-file", mine, "--id", "mine"
    )
    assert stored.exit_status == 0
    assert "decides nothing" in stored.stderr.decode()
    assert "mine" in (await desk.config("list-attestation-policies")).split()
    await desk.config("delete-attestation-policy", "--id", "mine")

    await desk.config("set-sample-reference-value", "svn", "7", "--as-integer")
    values = await desk.config("get-reference-values")
    assert json.loads(values) == {"svn": [7]}
    table = await desk.config("list-reference-values")
    assert "svn" in table
    assert "[7]" in table
    listed = json.loads(await desk.config("list-reference-values", "--json"))
    assert {"name", "value", "expiration"} <= set(listed[0])
    await desk.config("delete-reference-value", "--id", "svn")
    await desk.config("set-reference-values", desk.write("values.json", values))
    assert json.loads(await desk.config("get-reference-values", "--json")) == {"svn": [7]}


@pytest.mark.parametrize(
    ("text", "kind", "status", "said"),
    [
        ("allow := true\n", "resource", 0, ""),
        ("allow if input.submod\n", "resource", 0, "warning: line 2: there is no input.submod"),
        ("alow := true\n", "resource", 65, "the policy has no rule allow"),
        ("allow if not f(1)\nf(x) if { some i; i > x }\n", "resource", 65, "var i is unsafe"),
        ("allow := true\n", "attestation", 65, "the policy has no rule trust_claims"),
        ("trust_claims := {}\n", "attestation", 0, ""),
    ],
)
async def test_a_policy_is_checked_without_a_kbs(
    tmp_path: Path, text: str, kind: str, status: int, said: str
) -> None:
    desk = Desk(tmp_path)
    file = desk.write("policy.rego", f"package policy\n{text}")
    done = await desk.run("config", "check-policy", "--policy-file", file, "--kind", kind, "--json")
    assert done.exit_status == status, done.stderr
    assert said in done.stderr.decode()
    if status == 0:
        assert len(json.loads(done.stdout)["warnings"]) == (1 if said else 0)


async def test_tpms_of_vendors_are_allowed_and_struck_off(desk: Desk) -> None:
    one, two, three = "1a" * 32, "2b" * 32, "3c" * 32
    assert await desk.config("list-tpm-eks") == ""
    gone = await desk.run("config", "delete-tpm-ek", one)
    assert (gone.exit_status, one in gone.stderr.decode()) == (66, True)
    colons = ":".join(["1A"] * 32)
    file = desk.write("eks", f"# ours\n{colons}\nsha256:{two}\n{one}\n")
    said = json.loads(await desk.config("set-tpm-eks", file, "--json"))
    assert said == {"allowed": [one, two]}
    more = desk.write("more", f"{two}\n{three}\n")
    await desk.config("set-tpm-eks", more, "--add")
    assert await desk.config("list-tpm-eks") == f"{one}\n{two}\n{three}\n"
    await desk.config("delete-tpm-ek", two.upper())
    assert json.loads(await desk.config("list-tpm-eks", "--json")) == [one, three]
    # It is a reference value, which policies see and an attestation service elsewhere has.
    shown = await desk.config("get-reference-value", "--id", "trusted_ek")
    assert json.loads(shown) == [one, three]
    for bad in (desk.write("bad", f"{one}\nrack 2\n"), desk.write("none", "# nobody\n")):
        refused = await desk.run("config", "set-tpm-eks", bad)
        assert (refused.exit_status, str(bad) in refused.stderr.decode()) == (65, True)
    assert (await desk.run("config", "delete-tpm-ek", one[1:])).exit_status == 2
    await desk.config("set-tpm-eks", more)
    assert await desk.config("list-tpm-eks") == f"{two}\n{three}\n"
    # What somebody registered by hand and is no list allows nobody, and is no list here.
    await desk.config("set-sample-reference-value", "trusted_ek", one, "--as-single-value")
    assert await desk.config("list-tpm-eks") == ""
    audited = await desk.output("audit", "show", "--json")
    assert audited.count("PUT /kbs/v0/reference-value/trusted_ek") == 4


async def test_an_admin_s_token_comes_from_where_it_is_said(desk: Desk) -> None:
    token = await desk.output("admin-token", "--lifetime", "5m")
    del desk.environment["KBS_AUTH_PRIVATE_KEY"]
    assert (await desk.run("config", "list-resources")).exit_status == 77
    file = desk.write("token", token)
    assert await desk.output("config", "--admin-token-file", file, "list-resources") == ""
    both = ("--admin-token-file", file, "--auth-private-key", desk.folder / "admin.key")
    assert (await desk.run("config", *both, "list-resources")).exit_status == 2
    desk.write(".trustee/admin-token", token)
    assert await desk.config("list-resources") == ""
    nearer = desk.folder / "kbs/config/docker-compose/admin-token"
    nearer.parent.mkdir(parents=True)
    nearer.write_text("e30.e30.AA")
    assert (await desk.run("config", "list-resources")).exit_status == 77
    nearer.write_text(token)
    desk.write(".trustee/admin-token", "e30.e30.AA")
    assert await desk.config("list-resources") == ""
    bad = desk.write("bad", "a\nb")
    assert (await desk.run("config", "--admin-token-file", bad, "list-resources")).exit_status == 78


async def test_a_passport_is_shown_with_its_key(desk: Desk) -> None:
    path = ("--path", "kbs:///default/key/1")
    await desk.config(
        "set-resource", "--path", "default/key/1", "--resource-file", desk.folder / "secret"
    )
    key = desk.write("tee.key", TeeKeyPair.generate().pem())
    other = desk.write("other.key", TeeKeyPair.generate().pem())
    attest = ("attest", "--insecure-sample", "--tee-key-file", key)
    token = desk.write("token", await desk.output(*attest, INIT_DATA))
    claims = json.loads(base64.urlsafe_b64decode(token.read_text().split(".")[1] + "=="))
    evidence = claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"]
    assert evidence["init_data_claims"]["a.toml"] in ({"b": 1}, "b = 1")
    file = desk.write("init.toml", INIT_DATA)
    by_file = json.loads(await desk.output(*attest, "--initdata", file, "--json"))["token"]
    assert by_file != token.read_text().strip()
    get = ("get-resource", *path, "--attestation-token", token)
    shown = await desk.output(*get, "--tee-key-file", key)
    assert base64.b64decode(shown) == SECRET
    wrong = await desk.run(*get, "--tee-key-file", other)
    assert wrong.exit_status == 65
    assert "does not decrypt" in wrong.stderr.decode()
    for flags, status, words in (
        ((), 2, "--tee-key-file"),
        (("--tee-key-file", key, INIT_DATA), 2, "init data"),
        (("--tee-key-file", token), 65, "TEE key"),
    ):
        done = await desk.run(*get, *flags)
        assert (done.exit_status, words in done.stderr.decode()) == (status, True)
    both = await desk.run(*attest, INIT_DATA, "--initdata", file)
    assert both.exit_status == 2
    forged = desk.write("forged", token.read_text().strip()[:-4] + "AAAA")
    refused = await desk.run(
        "get-resource", *path, "--attestation-token", forged, "--tee-key-file", key
    )
    assert refused.exit_status == 77
    assert "attestation token" in refused.stderr.decode()
    nonsense = await desk.run(
        "get-resource", *path, "--attestation-token", key, "--tee-key-file", key
    )
    assert nonsense.exit_status == 65
    assert b"PRIVATE" not in nonsense.stderr

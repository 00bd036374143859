# SPDX-License-Identifier: Apache-2.0
"""``cocos-cli encrypt`` as its user calls it."""

import asyncio
import contextlib
import json
import os
import pty
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from _kbs import admin_pair
from _layouts import Layer, blob_path, gzipped, tar, write
from _programs import running

from cocos._clock import system_clock
from cocos.clients.kbs import KbsAdmin
from cocos.crypto import admin_jwt, kek
from cocos.host import process
from cocos.host.images import layout, skopeo
from cocos.host.images.skopeo import Skopeo
from cocos.host.key_folder import KeyFolder
from cocos.wire import json as wire_json
from cocos.wire import oci, ocicrypt
from cocos.wire.kbs.protocol import ResourcePath, ResourceUri
from cocos.wire.manifest.computation import Computation

pytestmark = pytest.mark.integration

KEY = ResourcePath.parse("default/key/algo-key")
CLI = Path(sys.executable).parent / "cocos-cli"
LAYERS = [tar("a", b"x"), tar("b", os.urandom(2**16))]


@pytest.fixture
def plain(tool: Skopeo, tmp_path: Path) -> str:  # the command finds the same Skopeo
    write(tmp_path / "plain", [gzipped(layer) for layer in LAYERS])
    return f"oci:{tmp_path}/plain"


async def encrypt(*arguments: str | Path, check: bool = True) -> dict[str, Any]:
    """Run the command with ``--json``; returns what it printed, or its error."""
    done = await process.run([CLI, "encrypt", *arguments, "--key", str(KEY), "--json"], check=False)
    assert (done.exit_status == 0) is check, done.stderr.decode()
    text = done.stdout if check else done.stderr.splitlines()[-1]
    answer: dict[str, Any] = json.loads(text)
    return answer


def admin_files(folder: Path) -> tuple[Path, Path]:
    private, public = folder / "admin.key", folder / "admin.pub"
    for path, pem in zip((private, public), admin_pair(), strict=True):
        path.write_bytes(pem)
    return private, public


async def test_owner_without_a_daemon_and_a_guest(
    tool: Skopeo, plain: str, registry: str, tmp_path: Path
) -> None:
    """Key, registration and encryption in one; then a guest gets the key by attestation."""
    private, public = admin_files(tmp_path)
    remote = f"docker://{registry}/algo:v1"
    keys = tmp_path / "keys"
    flags = ["--insecure-http", "--insecure-allow-sample", "--socket", "127.0.0.1:0"]
    storage = ["--storage", str(tmp_path / "kbs"), "--auth-public-key", str(public)]
    async with running("kbs", *flags, *storage) as kbs:
        own = ["--kbs", kbs.address, "--keys", str(keys)]
        refused = await encrypt(plain, remote, *own, check=False)
        assert refused["error"] == "unauthenticated"
        assert KeyFolder(keys).read(KEY) is None  # or it would look like a registered one
        assert kbs.address in refused["message"]
        unsaid = await encrypt(plain, remote, *own, "--auth-private-key", private, check=False)
        assert unsaid["error"] == "bad-request"
        assert "--any-computation" in unsaid["hint"]
        assert KeyFolder(keys).read(KEY) is None
        own += ["--any-computation"]
        answer = await encrypt(plain, remote, *own, "--auth-private-key", private)
        assert answer["policy"] == f"resource/{KEY}"
        assert answer["key"] == KEY.uri
        assert answer["registered_at"] == kbs.address
        assert KeyFolder(keys).path(KEY).stat().st_mode & 0o777 == 0o600
        stranger = ["--kbs", kbs.address, "--keys", str(tmp_path / "other-keys")]
        stranger += ["--any-computation"]
        conflict = await encrypt(
            plain, remote, *stranger, "--auth-private-key", private, check=False
        )
        assert conflict["error"] == "wrong-state"
        assert "already has a key kbs:///default/key/algo-key" in conflict["message"]
        source = await tool.resolve(remote)
        assert source.digest == answer["digest"]
        assert source.manifest.config.digest == answer["config_digest"]
        skopeo.require_key(source, ResourceUri.parse(KEY.uri))
        config = tmp_path / "ocicrypt.json"
        guest = ["--socket", "127.0.0.1:0", "--kbs", kbs.address, "--insecure-sample"]
        async with running("coco-keyprovider", *guest) as program:
            config.write_bytes(ocicrypt.grpc_config(program.address))
            copied = await tool.copy(
                remote,
                f"oci:{tmp_path}/out",
                decryption_key="cc_kbc::null",
                keyprovider_config=config,
            )
    assert copied.image is not None
    assert [layer.diff_id for layer in copied.image.layers] == [oci.digest_of(x) for x in LAYERS]


def manifest_of(config_digest: str, *, pinned: bool = True) -> bytes:
    return json.dumps(
        {
            "computation_id": "1",
            "algorithm": {
                "uri": "docker://localhost:5000/algo:v1",
                "encrypted": True,
                "kbs_resource_path": str(KEY),
                **({"hash": config_digest} if pinned else {}),
            },
            "kbs_url": "",
        }
    ).encode()


@contextlib.asynccontextmanager
async def kbs_of(folder: Path, *flags: str | Path) -> AsyncIterator[str]:
    socket = ["--socket", "127.0.0.1:0", "--insecure-http", "--insecure-allow-sample"]
    async with running("kbs", *socket, "--storage", folder / "kbs", *flags) as program:
        yield program.address


async def test_who_may_get_the_key(tool: Skopeo, plain: str, tmp_path: Path) -> None:
    """Each way to say it; said otherwise later, it is refused until that is asked for."""
    private, public = admin_files(tmp_path)
    digest = (await tool.resolve(plain)).manifest.config.digest
    manifest = tmp_path / 'it\'s \n"the" manifest.json'
    manifest.write_bytes(manifest_of(digest))
    (tmp_path / "reference-values.json").write_text(json.dumps({"tpm_pcr11": ["b" * 64]}))
    image: list[str | Path] = ["--for-image", tmp_path]
    async with kbs_of(tmp_path, "--auth-public-key", public) as url:
        own: list[str | Path] = ["--kbs", url, "--keys", tmp_path / "keys"]
        own += ["--auth-private-key", private]

        async def policy() -> str:
            words: list[str | Path] = ["--url", url, "config", "--auth-private-key", private]
            words += ["get-resource-policy", "--id", f"resource/{KEY}"]
            done = await process.run([CLI.with_name("kbs-client"), *words])
            return done.stdout.decode()

        out = f"oci:{tmp_path}/out"
        await encrypt(plain, out, *own, "--for", manifest, *image)
        computation = Computation.from_json(manifest.read_bytes())
        text = await policy()
        for wanted in (computation.digest().hex(), digest.removeprefix("sha256:"), "b" * 64):
            assert wanted in text
        again = await encrypt(plain, f"{out}2", *own, *image, "--for", manifest)
        assert not again["key_made"]
        for other in (["--any-computation"], ["--for", manifest], image):
            refused = await encrypt(plain, out, *own, *other, check=False)
            assert refused["error"] == "wrong-state"
            assert "--replace-policy" in refused["hint"]
        assert await policy() == text
        await encrypt(plain, f"{out}3", *own, "--for-algorithm", digest, "--replace-policy")
        assert digest.removeprefix("sha256:") in await policy()
        assert computation.digest().hex() not in await policy()


async def test_what_says_too_little_or_nothing(plain: str, tmp_path: Path) -> None:
    """Refused before anything is registered, made, or asked of a KBS."""
    unpinned, empty = tmp_path / "unpinned.json", tmp_path / "empty"
    unpinned.write_bytes(manifest_of("", pinned=False))
    empty.mkdir()
    (empty / "reference-values.json").write_text("{}")
    folder = tmp_path / "keys"
    own: list[str | Path] = ["--kbs", "http://127.0.0.1:1", "--keys", folder]
    table: list[tuple[list[str | Path], str]] = [
        (["--for", unpinned], "malformed"),
        (["--for", tmp_path / "nobody.json"], "not-found"),
        (["--for-image", empty], "malformed"),
        (["--for-image", tmp_path / "nobody"], "not-found"),
        (["--for-algorithm", "sha256:abc"], "bad-request"),
        (["--for-algorithm", "a" * 64 + '"'], "bad-request"),
        (["--for", unpinned, "--any-computation"], "bad-request"),
        (["--for-algorithm", "a" * 64, "--any-computation"], "bad-request"),
    ]
    for words, error in table:
        answer = await encrypt(plain, f"oci:{tmp_path}/out", *own, *words, check=False)
        assert answer["error"] == error, words
    assert KeyFolder(folder).names() == []
    answer = await encrypt(
        plain, f"oci:{tmp_path}/out", "--keys", folder, "--any-computation", check=False
    )
    assert "--kbs" in answer["message"]


async def test_the_plain_form_of_the_guide(plain: str, tmp_path: Path) -> None:
    """A KBS that lets everybody administer: nothing would hold, which the command says."""
    async with kbs_of(tmp_path, "--insecure-api") as url:
        words = [plain, f"oci:{tmp_path}/out", "--key", str(KEY), "--kbs", url]
        done = await process.run([CLI, "encrypt", *words, "--keys", tmp_path / "keys"])
        assert b"warning: the key kbs:///default/key/algo-key stands under" in done.stderr
        assert b"encrypted 2 layers" in done.stdout
        await encrypt(
            plain,
            f"oci:{tmp_path}/2",
            "--kbs",
            url,
            "--keys",
            tmp_path / "keys",
            "--any-computation",
        )


@pytest.mark.parametrize(
    ("answers", "said", "status"),
    [
        pytest.param(["4"], "submod in input.submods", 0, id="any"),
        pytest.param(["2", "a" * 64], "a" * 64, 0, id="a program"),
        pytest.param([""], "nobody may get the key yet", 2, id="safe by default"),
        pytest.param(["yes"], "nobody may get the key yet", 2, id="no such choice"),
        pytest.param(["1", "/nobody/there.json"], "is not there", 66, id="no such manifest"),
    ],
)
async def test_on_a_terminal_it_asks(
    plain: str, tmp_path: Path, answers: list[str], said: str, status: int
) -> None:
    private, public = admin_files(tmp_path)
    async with kbs_of(tmp_path, "--auth-public-key", public) as url:
        words = [plain, f"oci:{tmp_path}/out", "--key", str(KEY), "--kbs", url]
        words += ["--keys", f"{tmp_path}/keys", "--auth-private-key", str(private)]
        shown, code = await asyncio.to_thread(on_a_terminal, [str(CLI), "encrypt", *words], answers)
        assert "Who may get the key kbs:///default/key/algo-key?" in shown
        assert code == status, shown
        if status:
            assert said in shown
            assert KeyFolder(tmp_path / "keys").names() == []
            return
        async with KbsAdmin(
            url, token=admin_jwt.mint(private.read_bytes(), now=system_clock())
        ) as kbs:
            assert said in await kbs.get_resource_policy(f"resource/{KEY}")


def on_a_terminal(argv: list[str], answers: list[str]) -> tuple[str, int]:
    """Run a program on a terminal of its own; answer each of its prompts."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(argv[0], argv)  # noqa: S606 - the child of a fork
    shown, waiting = "", list(answers)
    with contextlib.suppress(OSError):  # how a terminal ends
        while data := os.read(terminal, 4096):
            shown += data.decode()
            if waiting and shown.rstrip(" ").endswith(":"):
                os.write(terminal, f"{waiting.pop(0)}\n".encode())
                shown += "\n"
    os.close(terminal)
    return shown, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


async def test_who_may_register_but_not_say_for_whom(plain: str, tmp_path: Path) -> None:
    """An administrator of resources alone: nothing is registered, and it says why."""
    private, public = admin_files(tmp_path)
    config = tmp_path / "kbs.toml"
    config.write_text(
        f"""
        sockets = ["127.0.0.1:0"]
        insecure_http = true
        auth_public_keys = {{ alice = "{public}" }}
        access_rules = [{{ role = "alice", allowed_endpoints = "^/kbs/v0/resource/.+$" }}]
        """
    )
    async with running("kbs", "--config-file", config, "--storage", tmp_path / "kbs") as kbs:
        own: list[str | Path] = ["--kbs", kbs.address, "--keys", tmp_path / "keys"]
        own += ["--auth-private-key", private, "--any-computation"]
        answer = await encrypt(plain, f"oci:{tmp_path}/out", *own, check=False)
        assert answer["error"] == "denied"
        assert "was not registered" in answer["message"]
        assert "cocos-cli policy" in answer["hint"]
    assert KeyFolder(tmp_path / "keys").names() == []


async def test_the_same_key_again(plain: str, tmp_path: Path) -> None:
    keys = ["--keys", str(tmp_path / "keys")]
    first = await encrypt(plain, f"oci:{tmp_path}/one", *keys)
    before = KeyFolder(tmp_path / "keys").read(KEY)
    second = await encrypt(plain, f"oci:{tmp_path}/two", *keys)
    assert (first["key_made"], second["key_made"]) == (True, False)
    assert KeyFolder(tmp_path / "keys").read(KEY) == before
    assert first["digest"] != second["digest"]
    assert first["config_digest"] == second["config_digest"]


async def test_without_a_kbs_it_says_that_no_guest_can_decrypt(plain: str, tmp_path: Path) -> None:
    """The image is as good as one with a KBS, so it ends with 0; a script's reader sees it, too."""
    forms: list[list[str]] = [[], ["--json"]]
    for number, flags in enumerate(forms):
        words = [plain, f"oci:{tmp_path}/{number}", "--key", str(KEY), "--keys", f"{tmp_path}/keys"]
        done = await process.run([CLI, "encrypt", *words, *flags])
        assert b"warning: the key kbs:///default/key/algo-key is not registered" in done.stderr


async def test_key_file(plain: str, tmp_path: Path) -> None:
    keys, file = ["--keys", str(tmp_path / "keys")], tmp_path / "algo.key"
    file.write_bytes(b"x" * 31)
    answer = await encrypt(plain, f"oci:{tmp_path}/out", *keys, "--key-file", file, check=False)
    assert "is 31 bytes long, not 32" in answer["message"]
    file.write_bytes(kek.generate())
    await encrypt(plain, f"oci:{tmp_path}/out", *keys, "--key-file", file)
    assert KeyFolder(tmp_path / "keys").read(KEY) == file.read_bytes()
    file.write_bytes(kek.generate())
    answer = await encrypt(plain, f"oci:{tmp_path}/out2", *keys, "--key-file", file, check=False)
    assert answer["error"] == "wrong-state"


async def test_image_encrypted_to_somebody_elses_key(plain: str, tmp_path: Path) -> None:
    await encrypt(plain, f"oci:{tmp_path}/theirs", "--keys", tmp_path / "their-keys")
    answer = await encrypt(
        f"oci:{tmp_path}/theirs", f"oci:{tmp_path}/out", "--keys", tmp_path / "keys", check=False
    )
    assert answer["error"] == "integrity"
    assert "is encrypted already" in answer["message"]
    assert KeyFolder(tmp_path / "keys").names() == []


async def test_nobody_there(plain: str, tmp_path: Path) -> None:
    keys = ["--keys", str(tmp_path / "keys")]
    answer = await encrypt(plain, "docker://localhost:1/x:v1", *keys, check=False)
    assert "the registry localhost:1 does not answer" in answer["message"]
    answer = await encrypt("docker://localhost:1/x:v1", plain, *keys, check=False)
    assert "the registry localhost:1 does not answer" in answer["message"]
    answer = await encrypt(
        plain, f"oci:{tmp_path}/x", *keys, "--kbs", "http://127.0.0.1:1", check=False
    )
    assert answer["error"] == "unreachable"
    assert "http://127.0.0.1:1" in answer["message"]


async def test_key_is_never_on_a_command_line(plain: str, tmp_path: Path) -> None:
    """Anybody may read the command lines of this machine's processes while it works."""
    store = KeyFolder(tmp_path / "keys")
    store.store(KEY, b"k" * 32)
    lines = b""
    for number in range(20):  # on a busy machine a look may come too late
        target = f"oci:{tmp_path}/out{number}"
        work = asyncio.create_task(encrypt(plain, target, "--keys", str(store.folder)))
        while not work.done():
            lines += await asyncio.to_thread(command_lines)
        await work
        if b"--encryption-key" in lines:
            break
    assert b"--encryption-key" in lines
    assert b"k" * 32 not in lines


def command_lines() -> bytes:
    lines = b""
    for entry in Path("/proc").iterdir():  # no pattern: a process may end meanwhile
        with contextlib.suppress(OSError):
            lines += (entry / "cmdline").read_bytes()
    return lines


async def test_what_no_vm_could_run_gets_no_key(tool: Skopeo, tmp_path: Path) -> None:
    """An artifact and a layer of another type are refused before there is a key."""
    assert tool.argv
    keys = KeyFolder(tmp_path / "keys")
    odd = Layer(b"x", b"x", "application/vnd.oci.image.layer.v1.tar+bzip2")
    for folder, layer, said in [
        ("odd", odd, "unsupported type"),
        ("closed", gzipped(tar("a", b"x")), "an artifact of type application/vnd.example"),
    ]:
        write(tmp_path / folder, [layer])
        if "artifact" in said:
            change_config_type(tmp_path / folder, "application/vnd.example.config+json")
        words: list[str | Path] = [
            f"oci:{tmp_path}/{folder}",
            f"oci:{tmp_path}/out",
            "--keys",
            tmp_path / "keys",
        ]
        error = await encrypt(*words, check=False)
        assert error["error"] == "malformed"
        assert said in error["message"]
        assert keys.read(KEY) is None


async def test_a_file_of_credentials_that_is_not_there(plain: str, tmp_path: Path) -> None:
    words: list[str | Path] = [plain, f"oci:{tmp_path}/out", "--keys", tmp_path / "keys"]
    words += ["--authfile", "nope.json"]
    error = await encrypt(*words, check=False)
    assert (error["error"], error["message"]) == ("not-found", "--authfile: nope.json is not there")
    assert KeyFolder(tmp_path / "keys").read(KEY) is None


def change_config_type(folder: Path, media_type: str) -> None:
    digest, _ = layout.read_manifest(folder)
    document = json.loads(blob_path(folder, digest).read_bytes())
    document["config"]["mediaType"] = media_type
    data = json.dumps(document).encode()
    blob_path(folder, oci.digest_of(data)).write_bytes(data)
    entry = oci.Descriptor(oci.MANIFEST, oci.digest_of(data), len(data))
    (folder / "index.json").write_bytes(wire_json.encode(oci.Index(2, (entry,))))

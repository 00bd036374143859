# SPDX-License-Identifier: Apache-2.0
"""Whoever sees a TEE's public key can answer with a key of their own.

Guests that know their KBS by something take nothing from another one, whichever of our
programs asks.
"""

import contextlib
import hashlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from _impostor import RESOURCE, Change, Impostor, Seen
from _kbs import InProcessKbs, kbs_in_process
from _keyprovider import OPTIONS, packet, unwrap
from _programs import running
from starlette.types import Receive, Scope, Send

from cocos.attesters import InsecureSampleAttester
from cocos.clients.attestation_agent import AttestationAgent
from cocos.clients.data_hub import DataHub
from cocos.clients.kbs import KbsAdmin, KbsClient
from cocos.clients.resources import KbsResources
from cocos.crypto import detached
from cocos.crypto.signing import SigningKey
from cocos.errors import CocosError, ConfigError, IntegrityError, PeerError, UnreachableError
from cocos.transport.http_server import serve_http
from cocos.transport.tls_files import TlsFiles
from cocos.wire.kbs import proof
from cocos.wire.kbs.address import KbsAddress
from cocos.wire.kbs.protocol import ResourcePath, ResourceUri

pytestmark = pytest.mark.integration

PATH = ResourcePath("default", "key", "1")
URI = ResourceUri.parse(PATH.uri)
HERS = ResourcePath("mallory", "key", "1")
TRUE, FALSE = b"t" * 32, b"f" * 32
CA = trustme.CA()
OTHER_CA = trustme.CA()
MALLORY = SigningKey.generate()


def nothing(_: Impostor, seen: Seen) -> Seen:
    return seen


def swap(impostor: Impostor, seen: Seen) -> Seen:
    """Answer with a key of our own, and leave the true answer's proof where it is."""
    if not seen.path.startswith(RESOURCE):
        return seen
    return replace(seen, body=impostor.sealed(FALSE))


def swap_and_strip(impostor: Impostor, seen: Seen) -> Seen:
    seen = swap(impostor, seen)
    kept = {name: value for name, value in seen.answer.items() if name != "cocos-proof"}
    return replace(seen, answer=kept)


def swap_and_sign(impostor: Impostor, seen: Seen) -> Seen:
    """Sign what the KBS would have signed, with another key."""
    if not seen.path.startswith(RESOURCE):
        return seen
    body = impostor.sealed(FALSE)
    resource = seen.path.removeprefix("/kbs/v0/")
    nonce = seen.headers.get("cocos-nonce", "")
    made = detached.sign(proof.content(nonce, resource, impostor.tee_key, body), MALLORY)
    return replace(seen, body=body, answer={**seen.answer, "cocos-proof": made})


def replay(impostor: Impostor, seen: Seen) -> Seen:
    """Answer for ever with the first answer of this session, proof and all."""
    first = next((each for each in impostor.seen if each.path == seen.path), seen)
    return first if seen.path.startswith(RESOURCE) else seen


@contextlib.asynccontextmanager
async def kbs(folder: Path, secret: bytes = TRUE) -> AsyncIterator[InProcessKbs]:
    """Have a KBS with a key; hers is there, too: a KBS has several owners."""
    folder.mkdir(exist_ok=True)  # noqa: ASYNC240 - it is quick
    async with kbs_in_process(folder) as made:
        async with made.admin() as admin:
            await admin.set_resource(PATH, secret)
            await admin.set_resource(HERS, FALSE)
        yield made


@contextlib.asynccontextmanager
async def served(
    kbs: InProcessKbs, change: Change = nothing, *, leaf: trustme.LeafCert | None = None
) -> AsyncIterator[str]:
    """Have a KBS on a port of this machine, or what answers in its place; its URL."""
    tls = None
    if leaf is not None:
        assert kbs.folder is not None
        tls = TlsFiles(kbs.folder / "chain.pem", kbs.folder / "tls.key")
        leaf.private_key_pem.write_to_path(tls.private_key)
        tls.certificate.write_bytes(b"".join(each.bytes() for each in leaf.cert_chain_pems))
    async with serve_http(Impostor(kbs, change), "127.0.0.1:0", tls=tls) as url:
        yield url


async def token_key(kbs: InProcessKbs) -> str:
    async with kbs.admin() as admin:
        (key,) = (await admin.token_keys())["keys"]
    return str(key["kid"])


def fingerprint(leaf: trustme.LeafCert) -> str:
    der = ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode())
    return hashlib.sha256(der).hexdigest()


async def got(address: str) -> bytes:
    async with KbsResources(InsecureSampleAttester(), url=address) as resources:
        return await resources.get(URI)


# --- by the key that signs tokens: over plain http, too ----------------------------------


async def test_without_anything_to_know_it_by_a_false_key_is_believed(tmp_path: Path) -> None:
    """What plain http costs; the guide says so."""
    async with kbs(tmp_path) as true, served(true, swap) as url:
        assert await got(url) == FALSE


@pytest.mark.parametrize("change", [swap, swap_and_strip, swap_and_sign])
async def test_a_false_key_is_refused_and_the_guest_says_why(
    tmp_path: Path, change: Change
) -> None:
    async with kbs(tmp_path) as true, served(true, change) as url:
        with pytest.raises(IntegrityError, match="not the one that was named") as caught:
            await got(f"{url}#token-key={await token_key(true)}")
    assert caught.value.hint
    assert "somebody answers in its place" in caught.value.hint


async def test_the_true_key_is_taken(tmp_path: Path) -> None:
    async with kbs(tmp_path) as true, served(true) as url:
        key = await token_key(true)
        assert await got(f"{url}#token-key={key}") == TRUE
        both = "&token-key=".join(sorted((key, MALLORY.kid)))
        assert await got(f"{url}#token-key={both}") == TRUE


async def test_an_answer_of_before_is_no_answer(tmp_path: Path) -> None:
    async with kbs(tmp_path) as true, served(true, replay) as url:
        address = f"{url}#token-key={await token_key(true)}"
        async with KbsResources(InsecureSampleAttester(), url=address) as resources:
            assert await resources.get(URI) == TRUE
            with pytest.raises(IntegrityError, match="named by its token key"):
                await resources.get(URI)


async def test_another_resource_of_the_same_kbs_is_no_answer(tmp_path: Path) -> None:
    """Its true owner's answer for the true guest and request, only not for this name."""

    class Redirected:
        def __init__(self, inner: InProcessKbs) -> None:
            self.inner = inner

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"].startswith(RESOURCE):
                scope = {**scope, "path": f"{RESOURCE}{HERS}", "raw_path": b""}
            await self.inner(scope, receive, send)

    async with kbs(tmp_path) as true, serve_http(Redirected(true), "127.0.0.1:0") as url:
        assert await got(url) == FALSE
        with pytest.raises(IntegrityError, match="named by its token key"):
            await got(f"{url}#token-key={await token_key(true)}")


async def test_another_kbs_with_its_own_key(tmp_path: Path) -> None:
    async with (
        kbs(tmp_path / "true") as true,
        kbs(tmp_path / "false", FALSE) as false,
        served(false) as url,
    ):
        key = await token_key(true)
        with pytest.raises(IntegrityError, match="attestation token") as caught:
            await got(f"{url}#token-key={key}")
        assert key in caught.value.message
        assert await token_key(false) in caught.value.message


# --- by TLS -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("issuer", "name", "known_by", "words"),
    [
        (OTHER_CA, "127.0.0.1", "ca", "not trusted"),  # the right name, somebody else's word
        (CA, "kbs.of-another.example", "ca", "not trusted"),  # the right CA, another KBS
        (CA, "127.0.0.1", "cert-sha256", "is another one"),  # the right name and CA
        (OTHER_CA, "127.0.0.1", "public-cas", "not trusted"),
    ],
)
async def test_a_certificate_that_is_not_the_kbs_s(
    tmp_path: Path, issuer: trustme.CA, name: str, known_by: str, words: str
) -> None:
    true_leaf = CA.issue_cert("127.0.0.1")
    async with (
        kbs(tmp_path, FALSE) as false,
        served(false, leaf=issuer.issue_cert(name)) as url,
    ):
        address = {
            "ca": str(KbsAddress.parse(url).with_ca(CA.cert_pem.bytes().decode())),
            "cert-sha256": f"{url}#cert-sha256={fingerprint(true_leaf)}",
            "public-cas": url,
        }[known_by]
        with pytest.raises(UnreachableError, match=words):
            await got(address)
        assert false.handshakes == 0, "it was spoken to"


async def test_the_true_certificate_is_taken(tmp_path: Path) -> None:
    leaf = CA.issue_cert("127.0.0.1")
    async with kbs(tmp_path) as true, served(true, leaf=leaf) as url:
        assert await got(f"{url}#cert-sha256={fingerprint(leaf)}") == TRUE
        assert await got(str(KbsAddress.parse(url).with_ca(CA.cert_pem.bytes().decode()))) == TRUE


async def test_a_fingerprint_is_of_the_certificate_whatever_its_name(tmp_path: Path) -> None:
    """A VM sees its host's KBS at 10.0.2.2, which stands in no certificate."""
    leaf = OTHER_CA.issue_cert("kbs.example")
    async with kbs(tmp_path) as true, served(true, leaf=leaf) as url:
        assert await got(f"{url}#cert-sha256={fingerprint(leaf)}") == TRUE


# --- nothing falls back -------------------------------------------------------------------


async def test_naming_the_known_kbs_again_without_its_key_changes_nothing(tmp_path: Path) -> None:
    """``kbs_url`` of a manifest: same place, another spelling, and nothing to know it by."""
    async with kbs(tmp_path) as true, served(true, swap) as url:
        address = f"{url}#token-key={await token_key(true)}"
        async with KbsResources(InsecureSampleAttester(), url=address) as resources:
            for spelling in (url, url.replace("http", "HTTP"), f"{url}/"):
                with pytest.raises(IntegrityError, match="not the one that was named"):
                    await resources.get(URI, spelling)


async def test_tls_is_not_given_up_for_a_url_with_http(tmp_path: Path) -> None:
    leaf = CA.issue_cert("127.0.0.1")
    async with kbs(tmp_path, FALSE) as false, served(false) as url:
        address = f"{url.replace('http', 'https')}#cert-sha256={fingerprint(leaf)}"
        async with KbsResources(InsecureSampleAttester(), url=address) as resources:
            with pytest.raises(PeerError):
                await resources.get(URI, url)
    assert false.handshakes == 0


async def test_redirects_are_not_followed(tmp_path: Path) -> None:
    async with kbs(tmp_path / "false", FALSE) as false, served(false) as elsewhere:

        def redirect(_: Impostor, seen: Seen) -> Seen:
            return replace(seen, status=307, answer={"location": f"{elsewhere}{seen.path}"})

        async with kbs(tmp_path / "true") as true, served(true, redirect) as url:
            with pytest.raises(CocosError):
                await got(f"{url}#token-key={await token_key(true)}")
            with pytest.raises(CocosError):
                await got(url)
    assert false.handshakes == 0


@pytest.mark.parametrize("what", ["ca", "ca_file"])
def test_a_ca_for_plain_http_is_a_mistake(tmp_path: Path, what: str) -> None:
    (tmp_path / "ca.pem").write_bytes(CA.cert_pem.bytes())
    named = CA.cert_pem.bytes().decode() if what == "ca" else tmp_path / "ca.pem"
    with pytest.raises(ConfigError, match="no certificate"):
        KbsClient("http://kbs.test", InsecureSampleAttester(), **{what: named})  # type: ignore[arg-type]


def test_a_token_key_does_not_stand_for_an_administrator_s_kbs() -> None:
    with pytest.raises(ConfigError, match="administrators"):
        KbsAdmin(f"http://kbs.test#token-key={MALLORY.kid}", token="t")


# --- the guest's programs -----------------------------------------------------------------


@contextlib.asynccontextmanager
async def agent(tmp_path: Path, *, kbs: str | None = None) -> AsyncIterator[str]:
    config = tmp_path / "aa.toml"
    config.write_text("" if kbs is None else f'[token_configs.kbs]\nurl = "{kbs}"\n')
    arguments = ["--attestation_sock", "127.0.0.1:0", "--insecure-sample", "-c", str(config)]
    async with running("attestation-agent", *arguments) as program:
        yield program.address


async def test_the_attestation_agent_refuses_an_impostor(tmp_path: Path) -> None:
    async with kbs(tmp_path / "true") as true, kbs(tmp_path / "false", FALSE) as false:
        pin = f"token-key={await token_key(true)}"
        async with (
            served(false) as url,
            agent(tmp_path, kbs=f"{url}#{pin}") as address,
            AttestationAgent(address) as client,
        ):
            for token_type in ("kbs", f"kbs::{url}", f"kbs::{url}#{pin}"):
                with pytest.raises(CocosError, match="named by its token key"):
                    await client.get_token(token_type)


@pytest.mark.parametrize("by_request", [False, True])
async def test_the_key_provider_refuses_a_false_key(tmp_path: Path, *, by_request: bool) -> None:
    async with kbs(tmp_path / "true") as true:
        pin = f"token-key={await token_key(true)}"
        async with (
            served(true, swap) as url,
            agent(tmp_path) as aa,
            running(
                "coco-keyprovider",
                *("--socket", "127.0.0.1:0", "--aa", aa),
                env={} if by_request else {"AA_KBC_PARAMS": f"cc_kbc::{url}#{pin}"},
            ) as provider,
        ):
            asked = f"cc_kbc::{url}#{pin}" if by_request else "cc_kbc::null"
            with pytest.raises(CocosError, match="named by its token key"):
                await unwrap(provider.address, packet(FALSE, PATH.uri), asked)
        async with (
            served(true) as url,
            agent(tmp_path) as aa,
            running("coco-keyprovider", "--socket", "127.0.0.1:0", "--aa", aa) as provider,
        ):
            answer = await unwrap(provider.address, packet(TRUE, PATH.uri), f"cc_kbc::{url}#{pin}")
            assert answer == OPTIONS


async def test_the_data_hub_refuses_a_false_secret(tmp_path: Path) -> None:
    async with kbs(tmp_path / "true") as true:
        pin = f"token-key={await token_key(true)}"
        async with served(true, swap) as url, agent(tmp_path) as aa:
            config = tmp_path / "cdh.toml"
            config.write_text(f'[kbc]\nname = "cc_kbc"\nurl = "{url}#{pin}"\n')
            arguments = ["-c", str(config), "--socket", "127.0.0.1:0", "--aa", aa]
            async with (
                running("confidential-data-hub", *arguments) as hub,
                DataHub(hub.address) as client,
            ):
                with pytest.raises(CocosError, match="named by its token key"):
                    await client.resource(PATH.uri)

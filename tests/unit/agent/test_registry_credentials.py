# SPDX-License-Identifier: Apache-2.0
"""Which credentials reach which registry, and in what they are kept while they do."""

import base64
import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from cocos.agent.registries import KbsCredentials, reached
from cocos.agent.registry_credentials import RegistryCredentials
from cocos.errors import FormatError, NotFoundError
from cocos.host.images.skopeo import Skopeo
from cocos.wire import oci
from cocos.wire.kbs.protocol import ResourceUri

LOGIN = base64.b64encode("alice:a pass:wörd".encode()).decode()
PEM = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"
URI = ResourceUri.parse("kbs:///default/credential/registry")
IMAGE = oci.Reference.parse("docker://r.example/a")
HOST = Skopeo(("skopeo",), verify_tls=False, extra_root_certificates=Path("/hosts.pem"))


@pytest.mark.parametrize(
    ("key", "image", "given"),
    [
        ("r.example", "docker://r.example/a", True),
        ("r.example/a", "docker://r.example/a", True),
        ("r.example/a", "docker://r.example/a/b", True),
        ("r.example/a", "docker://r.example/ab", False),
        ("r.example", "docker://r.example.evil/a", False),
        ("r.example", "docker://r.example:5000/a", False),
        ("r.example:5000", "docker://r.example/a", False),
        ("example", "docker://r.example/a", False),
        ("", "docker://r.example/a", False),
        ("https://index.docker.io/v1/", "docker://busybox", True),
        ("docker.io", "docker://user/a", True),
        ("user", "docker://user/a", False),
    ],
)
def test_whom_an_entry_is_for(key: str, image: str, given: bool) -> None:
    reference = oci.Reference.parse(image)
    document = {"auths": {key: {"auth": LOGIN}, "other.example": {"auth": "b3RoZXI="}}}
    chosen = RegistryCredentials.choose(json.dumps(document).encode(), reference, "they")
    assert (chosen is not None) == given
    if chosen is not None:
        assert b"other" not in chosen.authfile
        assert LOGIN not in repr(chosen)


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"auths": []},
        {"auths": {"r.example": {}}},
        {"auths": {"r.example": {"auth": 1}}},
        {"auths": {"r.example": {"auth": LOGIN}}, "extra_root_certificates": "-----BEGIN"},
        {"auths": {"r.example": {"auth": LOGIN}}, "extra_root_certificates": ["/etc/ca.pem"]},
    ],
)
def test_what_are_no_credentials(document: object) -> None:
    reference = oci.Reference.parse("docker://r.example/a")
    with pytest.raises(FormatError, match=r"^the things ") as caught:
        RegistryCredentials.choose(json.dumps(document).encode(), reference, "the things")
    assert LOGIN not in f"{caught.value} {caught.value.hint}"


class Kbs:
    """What a KBS gave, and whether it was asked."""

    def __init__(self, document: object) -> None:
        self.data = json.dumps(document).encode()
        self.asked: list[str] = []

    async def get(self, uri: ResourceUri, url: str | None = None) -> bytes:  # noqa: ARG002
        self.asked.append(str(uri))
        return self.data


class Refusing(Kbs):
    async def get(self, uri: ResourceUri, url: str | None = None) -> bytes:  # noqa: ARG002
        raise NotFoundError("nothing is there", hint="look elsewhere")


def document(*certificates: str) -> object:
    auths = {"r.example": {"auth": LOGIN}, "other.example": {"auth": "b3RoZXI="}}
    return {"auths": auths, "extra_root_certificates": certificates}


@pytest.mark.parametrize("certificates", [(), (PEM.format(1),), (PEM.format(1), PEM.format(2))])
async def test_the_registry_is_reached_by_what_the_owner_says_alone(
    certificates: tuple[str, ...],
) -> None:
    kbs = Kbs(document(*certificates))
    async with reached(HOST, KbsCredentials(URI, kbs), IMAGE) as tool:
        assert tool.verify_tls
        assert tool.authfile is not None
        assert stat.S_IMODE(tool.authfile.stat().st_mode) == 0o600
        kept = json.loads(tool.authfile.read_bytes())
        assert kept == {"auths": {"r.example": {"auth": LOGIN}}}
        if certificates:
            assert tool.extra_root_certificates is not None
            assert tool.extra_root_certificates.read_text() == "\n".join(certificates)
        else:
            assert tool.extra_root_certificates is None  # the host's CA is not believed
        as_the_host = replace(
            tool, authfile=None, verify_tls=False, extra_root_certificates=Path("/hosts.pem")
        )
        assert as_the_host == HOST
    assert not tool.authfile.parent.exists()
    assert kbs.asked == [str(URI)]


@pytest.mark.parametrize("image", ["oci:/r.example:latest", "docker://elsewhere.example/a"])
async def test_what_they_are_not_for_goes_its_own_way(image: str) -> None:
    kbs = Kbs(document())
    reference = oci.Reference.parse(image)
    async with reached(HOST, KbsCredentials(URI, kbs), reference) as tool:
        assert tool is HOST
    assert bool(kbs.asked) == image.startswith("docker:")
    async with reached(HOST, None, IMAGE) as tool:
        assert tool is HOST


async def test_a_refusal_says_what_was_refused() -> None:
    with pytest.raises(NotFoundError) as caught:
        async with reached(HOST, KbsCredentials(URI, Refusing({})), IMAGE):
            pass
    assert caught.value.message == f"the registries' credentials {URI}: nothing is there"


def test_a_password_is_in_no_message() -> None:
    chosen = RegistryCredentials.choose(
        json.dumps(document(PEM.format(1), PEM.format(2))).encode(), IMAGE, "they"
    )
    assert chosen is not None
    assert LOGIN not in repr(chosen)
    assert chosen.certificates == PEM.format(1) + "\n" + PEM.format(2)
    wrong = {"auths": {"r.example": {"auth": LOGIN}}, "extra_root_certificates": [PEM, "no"]}
    with pytest.raises(FormatError, match="no PEM"):
        RegistryCredentials.choose(json.dumps(wrong).encode(), IMAGE, "they")

# SPDX-License-Identifier: Apache-2.0
import pytest

from cocos.errors import FormatError
from cocos.wire import oci
from cocos.wire.json import encode

DIGEST = oci.digest_of(b"")
ENTRY = {"mediaType": "x", "digest": DIGEST, "size": 0}


def test_kind_of_a_manifest() -> None:
    manifest = {"schemaVersion": 2, "config": ENTRY, "layers": [ENTRY]}
    index = {"schemaVersion": 2, "manifests": [ENTRY]}
    docker = "application/vnd.docker.distribution.manifest"
    for extra in ({}, {"mediaType": oci.MANIFEST}, {"mediaType": f"{docker}.v2+json"}):
        assert isinstance(oci.parse_manifest(encode({**manifest, **extra})), oci.Manifest)
    for extra in ({}, {"mediaType": oci.INDEX}, {"mediaType": f"{docker}.list.v2+json"}):
        assert isinstance(oci.parse_manifest(encode({**index, **extra})), oci.Index)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"schemaVersion": 1, "mediaType": "application/vnd.docker.distribution.manifest.v1+json"},
        {"schemaVersion": 2, "config": ENTRY, "layers": [{**ENTRY, "size": -1}]},
        {"schemaVersion": 2, "config": ENTRY, "layers": [{**ENTRY, "digest": "sha512:00"}]},
        {"schemaVersion": 2, "config": ENTRY, "layers": [{**ENTRY, "digest": "sha256:../../x"}]},
        {"schemaVersion": 2, "config": ENTRY},
        {"schemaVersion": 2, "mediaType": "x", "config": ENTRY, "layers": [ENTRY]},
        {"schemaVersion": 2, "mediaType": "x", "manifests": [ENTRY]},
        # A document that two readers could take for two things.
        {"schemaVersion": 2, "mediaType": oci.MANIFEST, "manifests": [ENTRY]},
    ],
)
def test_manifests_that_are_refused(document: dict[str, object]) -> None:
    with pytest.raises(FormatError):
        oci.parse_manifest(encode(document))


@pytest.mark.parametrize("depth", [500, 5_000, 500_000])
def test_a_document_too_deep_to_look_at_is_refused(depth: int) -> None:
    """Members that nobody knows are passed over, but not before their names were looked at."""
    text = encode({"schemaVersion": 2, "config": ENTRY, "layers": [ENTRY]})
    oci.parse_manifest(text)
    deep = b'{"x":' + b"[" * depth + b"]" * depth + b"," + text[1:]
    if depth == 500:
        oci.parse_manifest(deep)
        return
    with pytest.raises(FormatError, match="is malformed"):
        oci.parse_manifest(deep)


def test_files_of_a_layout() -> None:
    data = encode({"schemaVersion": 2, "config": ENTRY, "layers": [ENTRY]})
    digest = oci.digest_of(data)
    entry = oci.Descriptor(oci.MANIFEST, digest, len(data))
    files = oci.layout_files({digest: data}, entry)
    assert files == {
        f"blobs/sha256/{digest.removeprefix('sha256:')}": data,
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": encode(
            {
                "schemaVersion": 2,
                "manifests": [{"mediaType": oci.MANIFEST, "digest": digest, "size": len(data)}],
            }
        ),
    }


def test_config_needs_digests() -> None:
    with pytest.raises(FormatError, match="not a SHA-256 digest"):
        oci.parse_config(encode({"rootfs": {"type": "layers", "diff_ids": ["abc"]}}))


@pytest.mark.parametrize(
    ("text", "registry"),
    [
        ("docker://localhost:5000/lin-reg-algo:v1.0", "localhost:5000"),
        ("docker://[::1]:5000/a/b:x", "[::1]:5000"),
        ("docker://r.example/a__b/c.d@" + DIGEST, "r.example"),
        ("oci:/tmp/image", ""),
        ("oci:/tmp/image:v1", ""),
        ("oci:folder/image", ""),
    ],
)
def test_references(text: str, registry: str) -> None:
    reference = oci.Reference.parse(text)
    assert str(reference) == text
    assert reference.registry == registry
    assert {reference.tag, reference.digest} <= {"", "v1.0", "x", "v1", DIGEST}


def test_by_digest() -> None:
    by_both = oci.Reference.parse(f"docker://h:1/x:v1@{DIGEST}")
    assert (by_both.tag, by_both.digest) == ("v1", DIGEST)
    assert str(by_both) == f"docker://h:1/x@{DIGEST}", "Skopeo takes one of them"
    other = oci.digest_of(b"other")
    assert str(by_both.pinned(other)) == f"docker://h:1/x@{other}"
    layout = oci.Reference.parse("oci:/folder:v1")
    assert layout.pinned(other) == layout


def test_how_long_a_name_is() -> None:
    name = "h:1/" + "a" * (255 - 4)
    assert oci.Reference.parse(f"docker://{name}").name == name
    with pytest.raises(FormatError, match="longer than 255"):
        oci.Reference.parse(f"docker://{name}a")


@pytest.mark.parametrize(
    "text",
    [
        "docker://",
        "docker://user:pw@host/x",
        "docker://UPPER",
        "docker://a/b:tag:tag",
        "docker://a//b",
        "docker://" + "/".join(["a" * 100] * 3),
        "busybox",
        "folder/image",
        "./image",
        "/image",
        "https://registry.example/x",
        "docker://host/UPPER",
        "docker://host/x --insecure-policy",
        "oci:",
        "oci:/tmp/a\n",
        "oci:/tmp/a:b:c",
        "--help",
    ],
)
def test_references_that_are_refused(text: str) -> None:
    with pytest.raises(FormatError, match=r"not an image reference|longer than 255"):
        oci.Reference.parse(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("docker://busybox", "docker.io/library/busybox:latest"),
        ("docker://busybox:1.36", "docker.io/library/busybox:1.36"),
        ("docker://busybox@" + DIGEST, "docker.io/library/busybox@" + DIGEST),
        ("docker://user/app", "docker.io/user/app:latest"),
        ("docker://registry/a/b", "docker.io/registry/a/b:latest"),
        ("docker://docker.io/busybox", "docker.io/library/busybox:latest"),
        ("docker://index.docker.io/a/b", "docker.io/a/b:latest"),
        ("docker://r.example/busybox", "r.example/busybox:latest"),
        ("docker://localhost/a", "localhost/a:latest"),
        ("docker://host:5000/a", "host:5000/a:latest"),
        ("docker://Registry/a", "Registry/a:latest"),
        ("localhost:5000/x:v1", "localhost:5000/x:v1"),
        ("r.example/a/b", "r.example/a/b:latest"),
        ("[::1]:5000/x", "[::1]:5000/x:latest"),
    ],
)
def test_references_as_skopeo_s_users_write_them(text: str, meant: str) -> None:
    reference = oci.Reference.parse(text)
    assert str(reference) == f"docker://{meant}"
    assert oci.Reference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    [
        "docker-archive:a.tar",
        "oci-archive:o.tar",
        "docker-daemon:a:b",
        "containers-storage:localhost/x",
        "dir:/tmp/x",
        "tarball:/a:/b",
    ],
)
def test_transports_that_skopeo_has_and_we_have_not_are_named(text: str) -> None:
    with pytest.raises(FormatError, match=f"Skopeo's {text.partition(':')[0]} ") as caught:
        oci.Reference.parse(text)
    assert f"skopeo copy {text} oci:FOLDER:TAG" in str(caught.value.hint)


@pytest.mark.parametrize("second", ["layers", "Layers", "LAYERS", "layer\u017f"])
def test_a_manifest_that_gos_programs_read_in_another_way_is_refused(second: str) -> None:
    """We would verify the layers of the one and umoci unpack those of the other."""
    other = {**ENTRY, "digest": oci.digest_of(b"evil")}
    pairs = [("schemaVersion", 2), ("config", ENTRY), ("layers", [ENTRY]), (second, [other])]
    text = b"{%s}" % b",".join(encode(name) + b":" + encode(value) for name, value in pairs)
    with pytest.raises(FormatError, match="ambiguous"):
        oci.parse_manifest(text)


def test_a_descriptor_that_gos_programs_read_in_another_way_is_refused() -> None:
    layer = {**ENTRY, "Digest": oci.digest_of(b"evil")}
    with pytest.raises(FormatError, match="ambiguous"):
        oci.parse_manifest(encode({"schemaVersion": 2, "config": ENTRY, "layers": [layer]}))


CONFIG = {
    "architecture": "amd64",
    "os": "linux",
    "rootfs": {"type": "layers", "diff_ids": [oci.digest_of(b"")]},
    "config": {
        "Entrypoint": ["good"],
        "Labels": {"Maintainer": "a", "maintainer": "b", "USER": "c"},
    },
}


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"entrypoint": ["good"], "Cmd": ["evil"]}},
        {"config": {"Entrypoint": ["evil"], "entrypoint": ["good"]}},
        {"config": {"Entrypoint": ["good"], "ENV": ["LD_PRELOAD=/x"]}},
        {"config": {"Entrypoint": ["good"], "U\u017fer": "0"}},
        {"Config": {"Entrypoint": ["good"]}},
        {"rootfs": {**CONFIG["rootfs"], "Diff_Ids": []}},  # type: ignore[dict-item]
        {"OS": "linux"},
    ],
)
def test_a_config_that_gos_programs_read_in_another_way_is_refused(change: object) -> None:
    """Its owner looks at it with their tools; we would start something else."""
    assert oci.parse_config(encode(CONFIG)).config is not None
    with pytest.raises(FormatError, match="the image config is ambiguous"):
        oci.parse_config(encode({**CONFIG, **change}))  # type: ignore[dict-item]


def test_a_config_with_a_member_twice_is_refused() -> None:
    text = encode(CONFIG).replace(b'"Labels"', b'"Entrypoint":["evil"],"Labels"')
    with pytest.raises(FormatError, match="ambiguous"):
        oci.parse_config(text)


@pytest.mark.parametrize("name", ["Layers", "MediaType", "manifest\u017f"])
def test_a_manifest_whose_members_are_spelled_otherwise_is_refused(name: str) -> None:
    manifest = {"schemaVersion": 2, "config": ENTRY, "layers": [ENTRY]}
    oci.parse_manifest(encode(manifest))
    with pytest.raises(FormatError, match="ambiguous"):
        oci.parse_manifest(encode({**manifest, name: []}))

# SPDX-License-Identifier: Apache-2.0
"""A registry that answers as it likes, whenever it likes."""

import contextlib
import http.server
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cocos.host.images import layout
from cocos.wire import oci
from cocos.wire.json import encode

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


@dataclass
class LyingRegistry:
    """One repository, ``algo``; what it serves can be changed at any moment.

    Attributes:
        address: Host and port.
        manifests: Tag or digest → media type and document.
        blobs: Digest → content.
        asked: What was asked for, by tag or digest, in order.
    mood: Asked first; tells whether it has answered.
    """

    address: str = ""
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    mood: Callable[[http.server.BaseHTTPRequestHandler], bool] = lambda _: False

    @property
    def url(self) -> str:
        return f"docker://{self.address}/algo:v1"

    def add(self, folder: Path) -> tuple[oci.Digest, oci.Manifest]:
        """Take over the blobs of a layout; its manifest can be had by digest."""
        digest, manifest = layout.read_manifest(folder)
        for path in (folder / "blobs" / "sha256").iterdir():
            self.blobs[f"sha256:{path.name}"] = path.read_bytes()
        self.manifests[digest] = (oci.MANIFEST, self.blobs[digest])
        return digest, manifest

    def tag(self, digest: str) -> None:
        self.manifests["v1"] = self.manifests[digest]

    def put(self, document: bytes, media_type: str, *names: str) -> oci.Digest:
        digest = oci.digest_of(document)
        for name in (digest, *names):
            self.manifests[name] = (media_type, document)
        return digest

    def put_index(self, *images: tuple[str, str]) -> oci.Digest:
        """Make the tag an index: architecture and digest of each image."""
        entries = tuple(
            oci.Descriptor(
                oci.MANIFEST,
                digest,
                len(self.manifests[digest][1]),
                platform=oci.Platform(architecture, "linux"),
            )
            for architecture, digest in images
        )
        return self.put(encode(oci.Index(2, entries)), oci.INDEX, "v1")

    def answer(self, path: str) -> tuple[str, bytes] | None:
        kind, _, name = path.removeprefix("/v2/algo/").partition("/")
        self.asked.append(name)
        if path == "/v2/":
            return "application/json", b"{}"
        if kind == "manifests":
            return self.manifests.get(name)
        blob = self.blobs.get(name.partition("?")[0])
        return None if blob is None else ("application/octet-stream", blob)


@contextlib.contextmanager
def lying_registry() -> Iterator[LyingRegistry]:
    """Have one run on loopback."""
    registry = LyingRegistry()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if registry.mood(self):
                return
            found = registry.answer(self.path)
            media_type, content = found or ("application/json", b"{}")
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    registry.address = f"127.0.0.1:{server.server_address[1]}"
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

# SPDX-License-Identifier: Apache-2.0
import base64

import pytest

from cocos.agent.fetch import check
from cocos.crypto import kek
from cocos.crypto.kek import Wrapped, WrapType
from cocos.errors import FormatError, IntegrityError
from cocos.host.images.skopeo import Source as Found
from cocos.wire import oci, ocicrypt
from cocos.wire.kbs.protocol import ResourceUri
from cocos.wire.manifest.parts import Source
from cocos.wire.ocicrypt import Packet

KEY = ResourceUri("resource", "default/key/1")
WANTED = Source("oci-image", "docker://registry/image:1", encrypted=True, key=KEY.path, kbs="")
SYMKEY = b"A" * 43 + b"="
OPTIONS = b'{"symkey":"%s","digest":"","cipheroptions":{"nonce":"%s"}}' % (
    SYMKEY,
    base64.b64encode(bytes(16)),
)


def found(*packets: Packet) -> Found:
    annotation = ",".join(base64.b64encode(packet.encode()).decode() for packet in packets)
    name = f"org.opencontainers.image.enc.keys.provider.{ocicrypt.PROVIDER}"
    digest = oci.digest_of(b"layer")
    layer = oci.Descriptor(oci.LAYER_GZIP + oci.ENCRYPTED, digest, 5, {name: annotation})
    manifest = oci.Manifest(2, oci.Descriptor(oci.CONFIG, digest, 5), (layer,))
    return Found(oci.Reference.parse(WANTED.url), digest, manifest)


def as_unauthenticated(wrapped: Wrapped, data: bytes) -> Wrapped:
    """A256GCM is A256CTR from its second block on, and a tag that nobody looks at then."""
    return Wrapped(WrapType.A256CTR, wrapped.iv + b"\0\0\0\2", data)


def test_a_layer_key_cannot_be_guessed_by_bits_flipped_in_its_annotation() -> None:
    """Whether changed private options still parse tells about the key that is in them.

    Some four hundred failed runs, each with its reason in an event, gave a registry the whole
    layer key, although the key provider wraps by an authenticated cipher.
    """
    key = kek.generate()
    wrapped = kek.wrap(key, OPTIONS)
    check(found(Packet(KEY, wrapped)), WANTED, b"")

    answers = set()
    for flip in (1, 2):  # to "@", no base64, and to "C"
        data = bytearray(wrapped.data[:-16])
        data[OPTIONS.index(SYMKEY)] ^= flip
        changed = as_unauthenticated(wrapped, bytes(data))
        try:
            ocicrypt.check_options(kek.unwrap(key, changed, "the key"))
            answers.add(True)
        except FormatError:
            answers.add(False)
        # The agent does not ask the key provider at all, whichever packet it would take.
        for packets in ((changed,), (wrapped, changed)):
            with pytest.raises(IntegrityError, match=r"layer 1 \(sha256:.*A256CTR"):
                check(found(*(Packet(KEY, each) for each in packets)), WANTED, b"")
    assert answers == {True, False}, "no oracle: this test tests nothing"


def test_a_layer_for_another_key_is_refused() -> None:
    other = ResourceUri("resource", "default/key/2")
    with pytest.raises(IntegrityError, match="default/key/2"):
        check(found(Packet(other, kek.wrap(kek.generate(), OPTIONS))), WANTED, b"")

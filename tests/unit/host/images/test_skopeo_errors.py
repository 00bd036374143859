# SPDX-License-Identifier: Apache-2.0
"""The texts are Skopeo's own, as seen in experiments."""

import pytest

from cocos import errors
from cocos.host.images.skopeo_errors import translate

D = "sha256:" + "ab" * 32
E = "sha256:" + "cd" * 32


def fatal(text: str) -> str:
    before = 'time="2026-11-23T15:36:56Z" level=warning msg="Compressor for blob"'
    return f'{before}\ntime="2026-11-23T15:36:56Z" level=fatal msg="{text}"\n'


CASES = {
    "provider down, decrypt": (
        (
            f"decrypting layer {D}: missing private key needed for decryption:\\nno suitable key found "
            "for decrypting layer key:\\n- Error from grpc method: rpc error: code = Unavailable desc "
            '= connection error: desc = \\"transport: Error while dialing: dial tcp 127.0.0.1:1: '
            'connect: connection refused\\"'
        ),
        errors.UnreachableError,
        ["the key provider at 127.0.0.1:1 does not answer", "connection refused"],
    ),
    "provider socket missing": (
        (
            "Unable to finalize encryption: error while retrieving keyprovider protocol grpc output: "
            "Error from grpc method: rpc error: code = Unavailable desc = connection error: desc = "
            '\\"transport: Error while dialing: dial unix /x/kp: connect: no such file\\"'
        ),
        errors.UnreachableError,
        ["key provider at /x/kp"],
    ),
    "provider refuses": (
        (
            f"decrypting layer {D}: missing private key needed for decryption:\\nno suitable key found "
            "for decrypting layer key:\\n- Error from grpc method: rpc error: code = NotFound desc = "
            "the KBS at http://k:8080 has no kbs:///default/key/x"
        ),
        errors.NotFoundError,
        [D, "has no kbs:///default/key/x"],
    ),
    "KBS down behind the provider": (
        (
            "rpc error: code = Unavailable desc = key kbs:///a/b/c: the KBS at http://127.0.0.1:1 "
            "cannot be reached"
        ),
        errors.UnreachableError,
        ["the KBS at http://127.0.0.1:1"],
    ),
    "provider denies": (
        "rpc error: code = PermissionDenied desc = key kbs:///a/b/c: no",
        errors.AccessDeniedError,
        ["kbs:///a/b/c"],
    ),
    "command form": (
        (
            "Unable to finalize encryption: error while retrieving keyprovider protocol command "
            "output: Error while running command: /x/python. stderr: coco-keyprovider: there is no "
            "key kbs:///a/b/c in /keys\\n  hint: make it\\n: exit status 66"
        ),
        errors.NotFoundError,
        ["there is no key kbs:///a/b/c in /keys"],
    ),
    "command without a word": (
        "Error while running command: /bin/false. stderr: : exit status 1",
        errors.PeerError,
        ["/bin/false", "without a word"],
    ),
    "wrong layer key": (
        (
            f"reading blob {D}: could not properly decrypt byte stream; exp hmac: 'aa', actual hmac: "
            "'\\x00\\xff'"
        ),
        errors.IntegrityError,
        [D, "does not match its authentication code"],
    ),
    "changed blob": (
        f"writing blob: happened during read: Digest did not match, expected {D}, got {E}",
        errors.IntegrityError,
        [D, E],
    ),
    "old skopeo, encrypt": (
        "Invalid encryption keys: Provided protocol not recognized",
        errors.ToolMissingError,
        ["not recognized"],
    ),
    "old skopeo, decrypt": (
        (
            "Invalid decryption keys: Unable to read file: open provider:attestation-agent:cc_kbc::"
            "null: no such file or directory"
        ),
        errors.ToolMissingError,
        ["open provider:"],
    ),
    "no provider": (
        "Unable to finalize encryption: no wrapped keys produced by encryption",
        errors.ConfigError,
        ["no key provider named attestation-agent"],
    ),
    "plain http": (
        (
            'pinging container registry r.example:5000: Get \\"https://r.example:5000/v2/\\": http: '
            "server gave HTTP response to HTTPS client"
        ),
        errors.ProtocolError,
        ["r.example:5000 speaks plain http"],
    ),
    "certificate": (
        (
            'pinging container registry r:1: Get \\"https://r:1/v2/\\": tls: failed to verify '
            "certificate: x509: certificate signed by unknown authority"
        ),
        errors.ProtocolError,
        ["certificate of the registry r:1"],
    ),
    "certificate for another name": (
        (
            'pinging container registry r:1: Get \\"https://r:1/v2/\\": tls: failed to verify '
            f"certificate: x509: certificate is valid for {', '.join(['name.example'] * 40)}, not r"
        ),
        errors.ProtocolError,
        ["not accepted: certificate is valid for name.example"],
    ),
    "certificate expired": (
        (
            'pinging container registry r:1: Get \\"https://r:1/v2/\\": tls: failed to verify '
            "certificate: x509: certificate has expired or is not yet valid: current time "
            "2026-11-30T00:00:00Z is after 2020-01-10T00:00:00Z"
        ),
        errors.ProtocolError,
        ["has expired", "is after 2020-01-10"],
    ),
    "proxy": (
        (
            'pinging container registry r:1: Get \\"https://r:1/v2/\\": proxyconnect tcp: dial tcp '
            "10.0.0.1:3128: connect: connection refused"
        ),
        errors.UnreachableError,
        ["the proxy before the registry r:1", "10.0.0.1:3128"],
    ),
    "disk full": (
        "writing blob: storing blob to file: write /tmp/x: no space left on device",
        errors.StorageError,
        ["no space left"],
    ),
    "too large a layer": (
        'writing blob: uploading layer chunked: StatusCode: 413, \\"<html><title>413</title>\\"',
        errors.TooLargeError,
        ["413"],
    ),
    "registry down": (
        (
            'pinging container registry localhost:1: Get \\"http://localhost:1/v2/\\": dial tcp '
            "127.0.0.1:1: connect: connection refused"
        ),
        errors.UnreachableError,
        ["the registry localhost:1 does not answer"],
    ),
    "no such tag": (
        "Error parsing image name: reading manifest v2 in localhost:5000/x: manifest unknown",
        errors.NotFoundError,
        ["localhost:5000/x"],
    ),
    "credentials": (
        "reading manifest v1 in localhost:5000/x: authentication required",
        errors.AuthenticationError,
        ["wants other credentials"],
    ),
    "policy": (
        "Source image rejected: Running image docker://x is rejected by policy.",
        errors.AccessDeniedError,
        ["trust policy"],
    ),
    "anything else": ("disk on fire", errors.ProcessError, ["disk on fire"]),
}


@pytest.mark.parametrize("name", CASES)
def test_known_words(name: str) -> None:
    text, kind, words = CASES[name]
    error = translate(fatal(text), exit_status=1, subject="copying it")
    assert type(error) is kind
    assert error.message.startswith("copying it: ")
    for word in words:
        assert word in error.message


def test_terminal_form_and_silence() -> None:
    error = translate("FATA[0000] manifest unknown \n", exit_status=2, subject="x")
    assert isinstance(error, errors.NotFoundError)
    assert "without a word" in translate("", exit_status=1, subject="x").message
    killed = translate("FATA[0000] manifest unknown \n", exit_status=-9, subject="x")
    assert (type(killed), killed.message) == (
        errors.ProcessError,
        "x: Skopeo was ended by signal SIGKILL",
    )


def test_raw_bytes_of_the_code_are_not_passed_on() -> None:
    text = fatal("could not properly decrypt byte stream; exp hmac: 'aa', actual hmac: 'SECRET'")
    assert "SECRET" not in translate(text, exit_status=1, subject="x").message

# SPDX-License-Identifier: Apache-2.0
"""What Skopeo's last words mean: its text in, our error out.

Skopeo has one exit code for nearly everything, so the text decides. The key provider's own
sentence, which travels inside it, is kept: it names the key and the cause.
"""

import json
import re

from cocos import errors
from cocos.errors import CocosError, ProcessError
from cocos.host.images import registry_errors
from cocos.host.images.registry_errors import tidy
from cocos.host.process import describe_status

_FATAL = re.compile(r'level=fatal msg=("(?:[^"\\]|\\.)*"|\S.*)|^FATA\[\d+\] (.*)', re.MULTILINE)
_LAYER = re.compile(r"sha256:[0-9a-f]{64}")
_RPC = re.compile(r"rpc error: code = (\w+) desc = (.*)", re.DOTALL)
_COMMAND = re.compile(
    r"Error while running command: (?P<path>\S+)\. stderr: (?P<text>.*?): "
    r"(?:exit status (?P<status>\d+)|signal|fork/exec)",
    re.DOTALL,
)
_DIAL = re.compile(r"dial (?:tcp|unix)6? ?(\S+?)?: (.*)", re.DOTALL)

OLD_SKOPEO_HINT = "Debian 12's and Ubuntu 22.04's Skopeo cannot; make setup installs one that can"

_BY_STATUS: dict[str, type[CocosError]] = {
    "InvalidArgument": errors.FormatError,
    "NotFound": errors.NotFoundError,
    "PermissionDenied": errors.AccessDeniedError,
    "Unauthenticated": errors.AuthenticationError,
    "DataLoss": errors.IntegrityError,
    "Unavailable": errors.UnreachableError,
    "DeadlineExceeded": errors.UnreachableError,
    "FailedPrecondition": errors.StateError,
    "ResourceExhausted": errors.TooManyRequestsError,
}
_BY_EXIT: dict[int, type[CocosError]] = {
    65: errors.IntegrityError,
    66: errors.NotFoundError,
    69: errors.UnreachableError,
    76: errors.ProtocolError,
    77: errors.AccessDeniedError,
    78: errors.ConfigError,
}


def translate(stderr: str, *, exit_status: int, subject: str) -> CocosError:
    """Return our error for a failed run of Skopeo.

    Args:
        stderr: Everything it wrote to standard error.
        exit_status: Its exit code, negative for a signal.
        subject: What was being done, for the message: "copying docker://…".
    """
    if exit_status < 0:  # whatever it said before says nothing of that
        return ProcessError(
            f"{subject}: Skopeo was ended by {describe_status(exit_status)}",
            exit_status=exit_status,
            stderr=stderr[-4096:],
        )
    text = _last_words(stderr)
    for rule in (_provider_answer, _provider_missing, _content, registry_errors.translate):
        error = rule(text, subject)
        if error is not None:
            return error
    return ProcessError(
        f"{subject}: Skopeo failed: {text[-600:] or 'without a word'}",
        exit_status=exit_status,
        stderr=stderr[-4096:],
    )


def _last_words(stderr: str) -> str:
    found = list(_FATAL.finditer(stderr))
    if not found:
        return stderr.strip()
    quoted, plain = found[-1].groups()
    if quoted is None:
        return str(plain)
    try:
        return str(json.loads(quoted))
    except ValueError:  # Go's quoting knows escapes that JSON does not
        return str(quoted).strip('"').replace("\\n", "\n").replace('\\"', '"')


def _layer(text: str) -> str:
    match = _LAYER.search(text)
    return f"layer {match[0]}: " if match else ""


def _provider_answer(text: str, subject: str) -> CocosError | None:
    """The key provider failed, or refused and said why."""
    command = _COMMAND.search(text)
    if command is not None:
        words = _provider_words(command["text"]) or (
            "it ended without a word" if command["status"] else "it was killed, or did not start"
        )
        kind = _BY_EXIT.get(int(command["status"] or 0), errors.PeerError)
        return kind(f"{subject}: {_layer(text)}key provider {command['path']}: {words}")
    rpc = _RPC.search(text)
    if rpc is None:
        return None
    code, words = rpc[1], rpc[2].strip()
    dial = _DIAL.search(words)
    if code == "Unavailable" and dial is not None and "connection error" in words:
        where = dial[1] or "its socket"
        return errors.UnreachableError(
            f"{subject}: the key provider at {where} does not answer: {tidy(dial[2])}",
            hint="start it: coco-keyprovider --socket 127.0.0.1:50011 --kbs URL",
        )
    kind = _BY_STATUS.get(code, errors.PeerError)
    error = kind(f"{subject}: {_layer(text[: rpc.start()])}key provider: {words.rstrip('- ')}")
    wait = errors.WAIT_ASKED.search(words)
    if wait is not None and isinstance(
        error, errors.TooManyRequestsError | errors.UnreachableError
    ):
        error.retry_after = float(wait[1])
    return error


def _provider_words(stderr: str) -> str:
    """Return the sentence in the standard error of our own command form."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    own = [line.partition(": ")[2] for line in lines if line.startswith("coco-keyprovider: ")]
    return " ".join(own or lines[-1:])


def _provider_missing(text: str, subject: str) -> CocosError | None:
    if "Provided protocol not recognized" in text or "open provider:" in text:
        return errors.ToolMissingError(f"{subject}: {text[-300:]}", hint=OLD_SKOPEO_HINT)
    if (
        "no wrapped keys produced by encryption" in text
        or "missing private key needed for decryption" in text
    ):
        return errors.ConfigError(
            f"{subject}: {_layer(text)}no key provider named attestation-agent is configured, or "
            "it gave no key",
            hint="OCICRYPT_KEYPROVIDER_CONFIG must name a configuration file",
        )
    return None


def _content(text: str, subject: str) -> CocosError | None:
    if "could not properly decrypt byte stream" in text:
        # Skopeo prints the computed code as raw bytes: not passed on.
        return errors.IntegrityError(
            f"{subject}: {_layer(text)}the ciphertext does not match its authentication code: "
            "wrong layer key, or the layer was changed"
        )
    mismatch = re.search(r"Digest did not match, expected (\S+), got (\S+)", text)
    if mismatch is not None:
        expected, found = (digest.rstrip(",") for digest in mismatch.groups())
        return errors.IntegrityError(
            f"{subject}: layer {expected} was changed: its content has the digest {found}"
        )
    if "does not match provided manifest digest" in text or "does not match expected sha" in text:
        return errors.IntegrityError(f"{subject}: it is not what was asked for: {text[-300:]}")
    if "is rejected by policy" in text:
        return errors.AccessDeniedError(f"{subject}: the trust policy rejects it: {text[-300:]}")
    if "should be decrypted, but we can't modify the manifest" in text:
        return errors.UsageError(f"{subject}: {text[-300:]}")
    return None

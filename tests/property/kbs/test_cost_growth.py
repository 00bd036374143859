# SPDX-License-Identifier: Apache-2.0
"""Twice the input costs twice the work, whatever it is: counted calls, never time.

The inputs are those of ``tests/integration/kbs/test_cost.py`` and whatever Hypothesis makes of
their parts. Genuine evidence counts, too: somebody may have a TPM and bad intentions.
"""

import asyncio
import contextlib
import hashlib
import json
import struct
from collections.abc import Callable
from typing import Any

import pytest
from _costly import event, log
from _meter import Meter
from _software_tpm import SoftwareTpm, b64
from hypothesis import given, settings
from hypothesis import strategies as st

from cocos._clock import system_clock
from cocos._types import ReportData
from cocos.attestation_service.annotate import init_claims
from cocos.crypto import jwt
from cocos.errors import CocosError, EvidenceError, Finding
from cocos.verifiers import Expected
from cocos.verifiers._tpm_explain import explain
from cocos.verifiers._tpm_log import EXPLAINED
from cocos.verifiers.tpm import Authorities, TpmVerifier
from cocos.wire.init_data import InitDocument
from cocos.wire.json import canonical, decode_strict

TPM = SoftwareTpm()
BOUND = ReportData(hashlib.sha384(b"session").digest())
PCRS = (b"\1" * 32,) * 24  # to which no log leads, so that each has to be explained
VERIFIER = TpmVerifier(Authorities(), clock=system_clock)
EXPECTED = Expected(BOUND, reference_values={"trusted_ak": [b64(TPM.spki)]})
AAEL = b"LEAA" + struct.pack("<I", 5) + b"a b c"
COMPUTATION = b'cocos computation {"algorithm":null,"datasets":[],"manifest":"' + b"a" * 64 + b'"}'


def work(function: Callable[[], object]) -> int:
    with Meter() as meter, contextlib.suppress(CocosError):
        function()
    return meter.total


def assert_linear(of: Callable[[int], Callable[[], object]], n: int, *, constant: int = 0) -> None:
    """The work for 2n is at most twice that for n, up to a constant and a tenth."""
    work(of(1))  # what is made once is made
    small, large = work(of(n)), work(of(2 * n))
    assert large <= 2.2 * small + constant + 500, (small, large)


# --- logs of genuine TPMs -----------------------------------------------------------------

EVENTS = st.builds(
    event,
    st.integers(0, 24),
    st.sampled_from([3, 4, 5, 6, 0xD, 0x80000001, 0x80000003, 0x80000007, 0x99]),
    st.binary(max_size=60) | st.sampled_from([AAEL, b"LEAA", b"StartupLocality\0\3"]),
    st.none() | st.just(bytes(32)),
)


def examined(firmware: bytes, aael: bytes | None, cmdline: str | None = None) -> Any:
    evidence = {**TPM.quote(BOUND, PCRS), "event_log": b64(firmware), "cmdline": cmdline}
    if aael is not None:
        evidence["aael"] = b64(aael)

    async def both() -> Any:
        return await (await VERIFIER.authenticate(evidence, EXPECTED)).claims(None)

    return asyncio.run(both())


@settings(max_examples=15)
@given(st.lists(EVENTS, min_size=1, max_size=4), st.booleans(), st.integers(100, 200))
def test_logs(events: list[bytes], runtime: bool, n: int) -> None:
    def of(times: int) -> Callable[[], object]:
        if runtime:
            return lambda: examined(log([]), b"".join(events * times))
        return lambda: examined(log(events * times), None)

    # The search for one event to blame takes its budget, and no more.
    assert_linear(of, n, constant=10 * EXPLAINED)


@pytest.mark.parametrize("length", [64, 2048])
def test_an_explanation_has_a_budget(length: int) -> None:
    """What it costs beside the replay does not grow with the log."""
    events = [event(4, 0xD, b"x")] * length
    replay = work(lambda: examined(log(events), None)) - work(lambda: examined(log([]), None))
    assert replay < 100 * length + 10 * EXPLAINED


# --- texts --------------------------------------------------------------------------------

JSON_PARTS = ["[", "]", "{", "}", ",", ":", '"', "\\", '"a"', "1", "[]", "{}", '"a":', "\\u0061"]
TOML_PARTS = ["[", "]", "{", "}", ",", "=", "'", '"', '"""', "'''", ".", "\\", "\n", "a", "1", "#"]


def init_data(text: str) -> object:
    head = 'version = "0.1.0"\nalgorithm = "sha256"\n'
    document = InitDocument.parse((head + text).encode(), "toml")
    return init_claims(document)


TARGETS: dict[str, tuple[list[str], Callable[[str], object]]] = {
    "JSON": (JSON_PARTS, lambda text: decode_strict(text.encode(), Any, "it")),
    "canonical JSON": (JSON_PARTS, lambda text: canonical({"x": text})),
    "TOML": (TOML_PARTS, init_data),
    "TOML of data": (TOML_PARTS, lambda text: init_data(f"[data]\n'aa.toml' = {json.dumps(text)}")),
    "variables": (
        ["a", "=", "\n", "token", "'"],
        lambda text: init_data(f"[data]\n'agent.env' = {json.dumps(text)}"),
    ),
    "token": ([".", "e", "A", "=", "-"], jwt.header_of),
}


@settings(max_examples=25)
@given(st.data())
@pytest.mark.parametrize("name", TARGETS)
def test_texts(name: str, data: st.DataObject) -> None:
    parts, target = TARGETS[name]
    words = st.lists(st.sampled_from(parts), max_size=6).map("".join)
    head, part, tail = data.draw(words), data.draw(words), data.draw(words)
    assert_linear(lambda n: lambda: target(head + part * n + tail), 300)


@pytest.mark.parametrize("parts", [("'x' = 'y'\n", "a{} = 1\n"), ("", "[a{}]\n"), ("", "[[a]]\n")])
def test_many_names(parts: tuple[str, str]) -> None:
    def of(n: int) -> Callable[[], object]:
        text = "[data]\n" + parts[0] + "".join(parts[1].format(i) for i in range(n))
        return lambda: init_data(text)

    assert_linear(of, 500)


def test_an_event_that_differs() -> None:
    """Over many events and many registered lists of them."""

    def of(n: int) -> Callable[[], object]:
        uefi = [{"index": 4, "type": "t", "digest": f"d{i}", "details": {}} for i in range(n)]
        registered = [{"digest": f"d{i}", "event": "e"} for i in range(n)]
        return lambda: explain(
            Finding("tpm.pcr04", "x"), uefi, {"tpm_pcr04_events": [registered] * 3}
        )

    assert_linear(of, 300)
    with pytest.raises(EvidenceError):
        examined(log([event(14, 0xD, b"x")]), None)

# SPDX-License-Identifier: Apache-2.0
"""What a policy is told: also of KBSs, when somebody on the way left a part of the evidence out."""

import hashlib
import json
from typing import Any

import pytest

from cocos._types import JsonObject
from cocos.attestation_service.annotate import compose, init_claims, parse_init_data
from cocos.errors import EvidenceError
from cocos.wire.init_data import InitDocument, build
from cocos.wire.kbs.protocol import InitData, Tee

KNOWN = f"http://10.0.2.2:8080#token-key={'A' * 43}"
TOLD = InitDocument.parse(build({"aa.toml": f'[token_configs.kbs]\nurl = "{KNOWN}"\n'}))


OWN = f"http://own:8080#token-key={'B' * 42}A"


@pytest.mark.parametrize(
    ("logged", "authenticated"),
    [
        ({"computations": []}, True),
        ({"computations": [{"kbs": [""]}]}, True),
        ({"computations": [{"kbs": ["http://other:8080"]}]}, False),
        # No log is signed: whoever hides one must not gain by it.
        ({}, False),
    ],
)
def test_a_computation_that_is_not_shown_may_have_had_any_kbs(
    logged: dict[str, object], authenticated: bool
) -> None:
    claims = {"report_data": "", "init_data": TOLD.digest.hex(), **logged}
    kbs = compose(Tee.TPM, claims, {}, TOLD)["kbs"]
    assert kbs["authenticated"] is authenticated
    assert kbs["named"][0]["url"] == "http://10.0.2.2:8080"
    assert (len(kbs["named"]) == 1) is authenticated


@pytest.mark.parametrize("bound", [{}, {"init_data": "00" * 32}])
def test_without_init_data_the_manifests_kbs_is_all(bound: dict[str, str]) -> None:
    claims = {"report_data": "", "computations": [{"kbs": [OWN]}], **bound}
    assert compose(Tee.TPM, claims, {}, None)["kbs"]["authenticated"] is True


def test_init_data_that_is_not_shown_may_name_any_kbs() -> None:
    claims = {"report_data": "", "computations": [{"kbs": [OWN]}], "init_data": "0a" * 32}
    kbs = compose(Tee.TPM, claims, {}, None)["kbs"]
    assert kbs["authenticated"] is False
    assert [each["url"] for each in kbs["named"]] == ["http://own:8080", None]


@pytest.mark.parametrize("name", ["offline_fs_kbc", "online_sev_kbc", ""])
def test_a_data_hub_that_asks_no_kbs_authenticates_none(name: str) -> None:
    text = f'[kbc]\nname = "{name}"\nurl = "{KNOWN}"\n'
    document = InitDocument.parse(build({"cdh.toml": text}))
    claims = {"report_data": "", "computations": [], "init_data": document.digest.hex()}
    assert compose(Tee.TPM, claims, {}, document)["kbs"]["authenticated"] is False


@pytest.mark.parametrize(
    ("line", "named", "authenticated"),
    [
        ("quiet", [KNOWN], True),
        ("quiet agent.aa_kbc_params=cc_kbc::http://10.0.2.2:8080", [KNOWN], True),
        ("quiet agent.aa_kbc_params=offline_fs_kbc::null", [KNOWN], True),
        ("agent.aa_kbc_params=cc_kbc::http://thief", [KNOWN, "http://thief"], False),
        ("agent.aa_kbc_params=cc_kbc::file:///x", [KNOWN, None], False),
        # Together with what the KBS is known by, longer than any program would read.
        (f"agent.aa_kbc_params=cc_kbc::http://10.0.2.2:8080/{'a' * 8150}", [KNOWN, None], False),
    ],
)
def test_the_kernels_command_line_names_a_kbs_to_guests_of_others(
    line: str, named: list[str | None], authenticated: bool
) -> None:
    """Of two programs one may go by the line, and the other by the init data."""
    claims = {"report_data": "", "computations": [], "init_data": "0a" * 32, "cmdline": line}
    kbs = compose(Tee.TPM, claims, {}, TOLD)["kbs"]
    assert kbs["authenticated"] is authenticated
    shown = [each and each.partition("#")[0] for each in named]
    assert [each["url"] for each in kbs["named"]] == shown


NOBODY = {"authenticated": False, "by": [], "named": []}
UNKNOWN: JsonObject = {"url": None, "authenticated": False, "by": "nothing", "proofs": []}
SOMEBODY = {"authenticated": False, "by": ["nothing"], "named": [UNKNOWN]}


def test_claims_and_what_they_are_bound_to() -> None:
    """What the evidence does not carry is not shown as if it did."""
    shown = compose(Tee.SAMPLE, {"svn": "1"}, {"nonce": "n"}, TOLD)
    assert list(shown) == ["sample", "insecure", "kbs"]
    assert shown["sample"] == {"svn": "1"}
    bound = {"svn": "1", "report_data": "r", "init_data": TOLD.digest.hex()}
    shown = compose(Tee.SAMPLE, bound, {"nonce": "n"}, TOLD)
    del shown["kbs"]
    assert shown == {
        "sample": {"svn": "1"},
        "insecure": [],
        "report_data": "r",
        "runtime_data_claims": {"nonce": "n"},
        "init_data": TOLD.digest.hex(),
        "init_data_claims": {"aa.toml": {"token_configs": {"kbs": {"url": KNOWN}}}},
    }
    assert compose(Tee.SAMPLE, bound, None, None)["init_data_claims"] is None


def test_a_machine_that_was_told_of_no_kbs() -> None:
    known: JsonObject = {"computations": []}
    assert compose(Tee.TPM, known, {}, None)["kbs"] == NOBODY
    assert compose(Tee.TPM, {}, {}, None)["kbs"] == SOMEBODY
    for text in ("", "[token_configs]", '[kbc]\nname = "cc_kbc"'):
        document = InitDocument.parse(build({"aa.toml": text, "cdh.toml": text, "x": "y"}))
        bound = {"init_data": document.digest.hex(), **known}
        assert compose(Tee.TPM, bound, {}, document)["kbs"] == NOBODY


@pytest.mark.parametrize("name", ["aa.toml", "cdh.toml"])
@pytest.mark.parametrize("text", ["= =", "[token_configs.kbs]\nurl = 5\n[kbc]\nname = 5"])
def test_what_a_program_would_not_read_may_name_any_kbs(name: str, text: str) -> None:
    document = InitDocument.parse(build({name: text}))
    claims = {"computations": [], "init_data": document.digest.hex()}
    assert compose(Tee.TPM, claims, {}, document)["kbs"] == SOMEBODY


def test_the_kbs_of_the_init_data_is_the_one_that_manifests_mean() -> None:
    """The first one named: that of the attestation agent, not of the data hub."""
    hub = f'[kbc]\nname = "cc_kbc"\nurl = "{OWN}"\n'
    agents = f'[token_configs.kbs]\nurl = "{KNOWN}"\n'
    document = InitDocument.parse(build({"aa.toml": agents, "cdh.toml": hub}))
    computations = [{"kbs": ["", "http://10.0.2.2:8080"]}, {"kbs": ["no address"]}]
    claims = {"computations": computations, "init_data": document.digest.hex()}
    kbs = compose(Tee.TPM, claims, {}, document)["kbs"]
    urls = ["http://10.0.2.2:8080", "http://own:8080", None]
    assert [each["url"] for each in kbs["named"]] == urls
    assert [each["authenticated"] for each in kbs["named"]] == [True, True, False]


@pytest.mark.parametrize("form", ["toml", "json"])
@pytest.mark.parametrize("body", ["", "x", "\ud800"])
def test_init_data_that_is_none(form: Any, body: str) -> None:
    with pytest.raises(EvidenceError, match="the init data is malformed") as caught:
        parse_init_data(InitData(form, body))
    assert [each.check for each in caught.value.findings] == ["init_data"]


# --- what policies look into ------------------------------------------------------------


def shown(**files: str) -> dict[str, Any]:
    members = {name.replace("_", "."): text for name, text in files.items()}
    return init_claims(InitDocument.parse(build(members)))


def digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def test_files_that_policies_look_into() -> None:
    toml = """a = [1, 2.5, "x", true]
at = 2026-11-23T12:00:00Z
on = 2026-11-23
time = 12:00:00
[b]
c = "d"
"""
    parsed = {
        "a": [1, 2.5, "x", True],
        "at": "2026-11-23T12:00:00+00:00",
        "on": "2026-11-23",
        "time": "12:00:00",
        "b": {"c": "d"},
    }
    assert shown(aa_toml=toml, cdh_toml=toml, x_toml=toml, x_env='A="b"') == {
        "aa.toml": parsed,
        "cdh.toml": parsed,
        "x.toml": toml,
        "x.env": {"A": "b"},
    }
    assert shown(x="y") == {"x": "y"}


@pytest.mark.parametrize("text", ["a = nan", "a = [-inf]", "a = {b = inf}", "= ="])
def test_what_is_no_json_stays_text(text: str) -> None:
    assert shown(aa_toml=text) == {"aa.toml": text}


def nested(depth: int, *, lists: bool) -> tuple[str, Any]:
    """So many containers inside each other, the outermost a table; as JSON and what it means."""
    inner: Any = [] if lists else {}
    for _ in range(depth - 2):
        inner = [inner] if lists else {"a": inner}
    return json.dumps({"a": inner}), {"a": inner}


@pytest.mark.parametrize("lists", [True, False])
def test_policies_are_not_given_what_is_nested_too_deep(*, lists: bool) -> None:
    for depth, read in ((2, True), (17, True), (32, True), (33, False), (40, False)):
        text, value = nested(depth, lists=lists)
        policy = f"package agent_policy\npolicy_data := {text}"
        wanted = {"agent_policy_claims": value} if read else {"policy.rego": policy}
        assert shown(policy_rego=policy) == wanted
        inline = "a = " + text[len('{"a": ') : -1].replace(": ", " = ")
        assert shown(aa_toml=inline) == {"aa.toml": value if read else inline}


def test_a_guest_policy_without_data_stays_text() -> None:
    for text in ("package agent_policy\n", "policy_data := [1]", ""):
        assert shown(policy_rego=text) == {"policy.rego": text}


def test_secrets_show_by_their_digests_wherever_they_are() -> None:
    toml = 'token = ["t", 1]\n[[a]]\nPassword = "p"\n'
    env = 'A="b"\nMY_TOKEN="t"\n'
    assert shown(**{"aa_toml": toml, "tls-key_pem": "k", "tls-cert_pem": "c", "x_env": env}) == {
        "aa.toml": {
            "token": [digest("t"), 1],
            "a": [{"Password": digest("p")}],
        },
        "tls-key.pem": digest("k"),
        "tls-cert.pem": "c",
        "x.env": {"A": "b", "MY_TOKEN": digest("t")},
    }


def test_variables_of_somebody_elses_guest_show_as_text() -> None:
    text = "# of another guest\nA=b\nMY_TOKEN=t\n"
    shown_as = f"# of another guest\nA=b\nMY_TOKEN={digest('t')}\n"
    assert shown(x_env=text) == {"x.env": shown_as}
    assert shown(x_env="MY_TOKEN=t") != shown(x_env="MY_TOKEN=u")

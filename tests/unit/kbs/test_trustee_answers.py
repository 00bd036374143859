# SPDX-License-Identifier: Apache-2.0
"""The same requests to ours as to Trustee's KBS: the same answers, or a reason in the docs."""

import base64
import contextlib
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
from _kbs import URL, InProcessKbs, admin_pair, kbs_in_process
from cryptography.hazmat.primitives.asymmetric import ec

from cocos.crypto import admin_jwt, base64url
from cocos.crypto.tee_key import TeeKeyPair
from cocos.wire.kbs import protocol as kbs

TABLE = Path(__file__).parents[2] / "support/kbs/trustee_answers.md"
DOCS = Path(__file__).parents[3] / "docs/operate/kbs.md"

ALLOW = "package policy\nallow := true\n"
DENY = "package policy\nallow := false if input.submods\n"
FAILS = "package policy\nallow := true if input.submods\nallow := 2 if input.submods\n"
RULES = 'package policy\ntrust_claims := {"hardware": 2}\n'
KEY = TeeKeyPair.generate()
OTHER = TeeKeyPair.generate()


@dataclass(frozen=True)
class Row:
    who: str
    request: str
    body: str
    trustee: str
    ours: str
    why: str


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


ROWS = [
    Row(*cells(line))
    for line in TABLE.read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| who ")
]


def named(text: str) -> dict[str, Any]:
    """Return the request, attestation or policy that a word of the table stands for."""
    return {
        "request": {"version": "0.4.0", "tee": "sample", "extra-params": ""},
        "policy": {"policy": base64url.encode(ALLOW.encode())},
        "rules": {
            "type": "rego",
            "policy_id": "default_cpu",
            "policy": base64url.encode(RULES.encode()),
        },
        "values": {
            "version": "0.1.0",
            "type": "sample",
            "payload": base64.b64encode(b'{"mine":["1"]}').decode(),
        },
    }[text]


REQUESTS: dict[str, dict[str, Any]] = {
    "with params": {"extra-params": {"supported-hash-algorithms": ["sha384"]}},
    "with more": {"more": 1},
    "of SAMPLE": {"tee": "SAMPLE"},
    "of nobody": {"tee": "nobody"},
}
POLICIES: dict[str, str] = {
    "padded": base64.urlsafe_b64encode(f"{ALLOW:40}".encode()).decode(),
    "standard alphabet": base64.b64encode(f"{ALLOW}#¿¿¿".encode()).decode().rstrip("="),
    "not UTF-8": base64url.encode(b"package policy # \xff"),
}
PUBLIC_P384 = ec.generate_private_key(ec.SECP384R1()).public_key().public_numbers()


def number(value: int, size: int) -> str:
    return base64url.encode(value.to_bytes(size, "big"))


KEYS: dict[str, dict[str, Any]] = {
    "ECDH-ES": {**KEY.public_jwk(), "alg": "ECDH-ES"},
    "P-384": {
        "kty": "EC",
        "crv": "P-384",
        "alg": "ECDH-ES+A256KW",
        "x": number(PUBLIC_P384.x, 48),
        "y": number(PUBLIC_P384.y, 48),
    },
    "OKP": {"kty": "OKP", "crv": "X25519", "alg": "ECDH-ES", "x": number(9, 32)},
    "off the curve": {**KEY.public_jwk(), "x": OTHER.public_jwk()["x"]},
}
INIT_DATA = {
    "toml": 'version = "0.1.0"\nalgorithm = "sha256"\n[data]\n"a" = "b"\n',
    "json": '{"version":"0.1.0","algorithm":"sha256","data":{"a":"b"}}',
}


def attestation(nonce: str, text: str) -> dict[str, Any]:
    """Return sample evidence, changed as the table says."""
    word = text.removeprefix("with ")
    key = KEYS.get(word, KEY.public_jwk())
    bound_key = OTHER.public_jwk() if text == "bound to another key" else key
    if word == "OKP":  # no type of ours holds it
        bound_key = KEY.public_jwk()
    public: kbs.TeePublicKey = msgspec.convert(bound_key, kbs.TeePublicKey)
    bound = base64.b64encode(bytes(32)).decode() if text == "bound to another nonce" else nonce
    digest = kbs.report_data(kbs.runtime_data(bound, public, ""))
    evidence = {"svn": "1", "report_data": base64.b64encode(digest).decode()}
    body: dict[str, Any] = {
        "runtime-data": {"nonce": nonce, "tee-pubkey": key},
        "tee-evidence": {"primary_evidence": evidence, "additional_evidence": ""},
    }
    if text == "of another nonce":
        body["runtime-data"]["nonce"] = base64.b64encode(bytes(32)).decode()
    if text == "without evidence":
        del body["tee-evidence"]
    if text == "with more":
        body["more"] = 1
    if word in INIT_DATA:
        body["init-data"] = {"format": word, "body": INIT_DATA[word]}
    return body


@dataclass
class Asking:
    """The two KBSs, one of which nobody may administer, and those who ask."""

    kbs: InProcessKbs
    http: httpx.AsyncClient
    deny_all: httpx.AsyncClient
    nonces: dict[str, str] = field(default_factory=dict)

    async def session(self) -> str:
        answer = await self.http.post("/kbs/v0/auth", json=named("request"))
        assert answer.status_code == 200, answer.text
        cookie = answer.headers["set-cookie"].partition(";")[0]
        self.nonces[cookie] = answer.json()["nonce"]
        return str(cookie)

    async def guest(self, text: str = "") -> tuple[str, str]:
        """Return the cookie of an attested session, and its token."""
        cookie = await self.session()
        answer = await self.http.post(
            "/kbs/v0/attest",
            json=attestation(self.nonces[cookie], text),
            headers={"Cookie": cookie},
        )
        assert answer.status_code == 200, answer.text
        return cookie, answer.json()["token"]

    async def headers(self, who: str) -> dict[str, str]:
        def admin(key: bytes) -> dict[str, str]:
            return {"Authorization": f"Bearer {admin_jwt.mint(key, now=self.kbs.now)}"}

        name, _, kind = who.partition(" of ")
        if name == "guest":
            return {"Cookie": (await self.guest(kind and f"with {kind}"))[0]}
        if name == "session":
            return {"Cookie": await self.session()}
        if name == "bearer":
            return {"Authorization": f"Bearer {(await self.guest())[1]}"}
        return {
            "stranger": {},
            "lost session": {"Cookie": f"{kbs.SESSION_COOKIE}={'0' * 32}"},
            "forger": {"Authorization": "Bearer a.b.c"},
            "admin": admin(self.kbs.admin_key),
            "admin, DenyAll": admin(self.kbs.admin_key),
            "other admin": admin(admin_pair()[0]),
        }[name]

    def body(self, text: str, headers: dict[str, str]) -> bytes:
        plain = {
            "": b"",
            "nothing": b"",
            "bytes": b"x",
            "no json": b"{",
            "3 MiB": bytes(3 * 2**20),
            "rego": ALLOW.encode(),
            "rego of rules": RULES.encode(),
            "{}": b"{}",
            "[1]": b"[1]",
        }
        if text in plain:
            return plain[text]
        word, _, change = text.replace(",", "").partition(" ")
        if word == "attestation":
            nonce = self.nonces.get(headers.get("Cookie", ""), base64.b64encode(bytes(32)).decode())
            return json.dumps(attestation(nonce, change)).encode()
        body = named(word)
        if change.startswith("without "):
            member = change.removeprefix("without ")
            del body["extra-params" if member == "params" else member]
        elif word == "request" and change:
            body |= REQUESTS.get(change, {"version": change.removeprefix("of ")})
        elif word in {"policy", "rules"} and change:
            body["policy"] = POLICIES[change]
        elif change == "unpadded":
            body["payload"] = base64.b64encode(b'{"a": 1}').decode().rstrip("=")
        elif change:
            member = "version" if change[3:4].isdigit() else "type"
            body[member] = change.removeprefix("of ")
        return json.dumps(body).encode()

    async def ask(self, row: Row) -> str:
        """Return what ours answers, in the table's words."""
        method, path = row.request.split()
        headers = await self.headers(row.who)
        http = self.deny_all if row.who.endswith("DenyAll") else self.http
        where = path if path.startswith("/") else f"/kbs/v0/{path}"
        content = self.body(row.body, headers)
        answer = await http.request(method, where, headers=headers, content=content)
        return f"{answer.status_code} {kind_of(answer)}"


def kind_of(answer: httpx.Response) -> str:
    if answer.status_code != 200:
        problem = answer.json() if answer.content else {"type": "-"}
        return str(problem["type"]).removeprefix(kbs.PROBLEM_TYPE)
    if not answer.content:
        return "empty"
    return "json" if answer.headers["content-type"] == "application/json" else "text"


async def furnish(kbs_: InProcessKbs) -> None:
    async with kbs_.admin() as admin:
        for repository, text in {"a": ALLOW, "denies": DENY, "fails": FAILS}.items():
            await admin.set_resource(kbs.ResourcePath(repository, "b", "c"), b"secret")
            await admin.set_resource_policy(text, f"resource/{repository}")
        await admin.set_attestation_policy("default_cpu", RULES)
        await admin.set_reference_value("svn", ["1"])


@contextlib.asynccontextmanager
async def asking_in(folder: Path, **settings: Any) -> AsyncIterator[Asking]:
    async with contextlib.AsyncExitStack() as stack:
        ours = await stack.enter_async_context(kbs_in_process(folder / "kbs", **settings))
        closed = await stack.enter_async_context(kbs_in_process(folder / "closed", deny_admin=True))
        await furnish(ours)
        http, shut = [
            await stack.enter_async_context(
                httpx.AsyncClient(transport=each.transport(), base_url=URL)
            )
            for each in (ours, closed)
        ]
        yield Asking(ours, http, shut)


async def test_the_answers_are_trustee_s_or_the_table_says_why(tmp_path: Path) -> None:
    wrong = []
    async with asking_in(tmp_path) as asking:
        for row in ROWS:
            said = await asking.ask(row)
            expected = row.ours or row.trustee
            if expected.endswith(" -"):  # no document of the KBS there: nothing but a status
                said = f"{said.split()[0]} -"
            if said != expected:
                wrong.append((row.who, row.request, row.body, said, expected))
            if row.request.partition(" ")[0] not in {"GET", "HEAD"} and "admin" in row.who:
                await furnish(asking.kbs)
    assert wrong == []


def test_whoever_differs_says_why() -> None:
    for row in ROWS:
        assert bool(row.ours) == bool(row.why)
        assert row.ours != row.trustee


def test_the_table_is_large_and_asks_nothing_twice() -> None:
    asked = [(row.who, row.request, row.body) for row in ROWS]
    assert len(set(asked)) == len(asked) > 100


def test_the_docs_say_why_each_answer_is_another_one() -> None:
    section = DOCS.read_text().partition("### Answers\n")[2].partition("\n#")[0]
    documented = {cells(line)[0] for line in section.splitlines() if line.startswith("| ")}
    assert documented - {"what"} == {row.why for row in ROWS if row.why}


async def test_denials_have_trustee_s_status_where_the_operator_wants_it(tmp_path: Path) -> None:
    """And nothing else has: only guests are denied by resource policies."""
    async with asking_in(tmp_path, denial_status=401) as asking:
        denied = [row for row in ROWS if row.why == "a resource policy that says no"]
        others = [row for row in ROWS if row.ours[:3] in {"403", "404"}]
        assert len(denied) > 1
        assert len(others) > len(denied)
        for row in denied:
            assert await asking.ask(row) == row.trustee
        for row in others:
            assert row in denied or await asking.ask(row) == row.ours
        cookie, _ = await asking.guest()
        answer = await asking.http.get("/kbs/v0/resource/denies/b/c", headers={"Cookie": cookie})
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["title"] == "denied"


def test_the_words_of_the_table_are_all_used() -> None:
    used = " ".join(row.body for row in ROWS)
    for word in (*REQUESTS, *POLICIES, *KEYS, *INIT_DATA):
        assert re.search(re.escape(word), used)

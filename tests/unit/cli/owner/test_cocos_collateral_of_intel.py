# SPDX-License-Identifier: Apache-2.0
"""``cocos-cli collateral``, against a service of this machine."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import pytest
from _intel import Intel
from typer.testing import CliRunner

from cocos.cli.owner.command import app
from cocos.host.collateral import CollateralFolder

MAKER = Intel()
NAMES = ["intel/tcb/tdx/00806f050000", "intel/qe/tdx", "intel/crl/platform", "intel/crl/root"]
ALONG = ["intel/chain/platform", "intel/chain/tcb"]


class Pcs(BaseHTTPRequestHandler):
    """Answers as Intel does; busy first, where it was told to be."""

    busy: ClassVar[list[int]] = []
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        route = self.path.partition("?")[0].removeprefix("/")
        chain = quote(MAKER.tcb_chain())
        answers: dict[str, tuple[str, str, bytes]] = {
            "tdx/certification/v4/tcb": (
                "TCB-Info-Issuer-Chain", chain, MAKER.signed("tcbInfo", MAKER.tcb_info).encode()
            ),
            "tdx/certification/v4/qe/identity": (
                "SGX-Enclave-Identity-Issuer-Chain", chain,
                MAKER.signed("enclaveIdentity", MAKER.qe_identity).encode(),
            ),
            "sgx/certification/v4/pckcrl": (
                "SGX-PCK-CRL-Issuer-Chain", quote(MAKER.crl_chain()), MAKER.crl(root=False)
            ),
            "sgx/certification/v4/rootcacrl": ("X", "x", MAKER.crl(root=True)),
        }  # fmt: skip
        status = self.busy.pop() if self.busy else 200
        name, value, body = answers[route]
        self.send_response(status)
        self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def service() -> Iterator[str]:
    Pcs.busy.clear()
    Pcs.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Pcs) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def run(*words: str | Path) -> Any:
    found = CliRunner().invoke(app, ["collateral", *map(str, words)], catch_exceptions=True)
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return json.loads(found.stdout)


def test_fetched_once_carried_and_stored(service: str, tmp_path: Path) -> None:
    Pcs.busy.append(503)
    here, there, file = tmp_path / "here", tmp_path / "there", tmp_path / "file"
    rows = run("fetch", *NAMES, NAMES[0], "--intel-url", service, "--collateral", here, "--json")
    assert {row["name"] for row in rows} == {*NAMES, *ALONG}
    assert len(Pcs.asked) == len(NAMES) + 1  # each once, and the one that was busy again
    run("export", file, "--collateral", here, "--json")
    run("import", file, "--collateral", there, "--json")
    for name in (*NAMES, *ALONG):
        assert CollateralFolder(there).item(name) == CollateralFolder(here).item(name)


@pytest.mark.parametrize("name", ["intel/x", "intel/tcb/tdx/x", "x"])
def test_nothing_of_that_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"called|fetched"):
        run("fetch", name, "--collateral", tmp_path / "folder", "--json")
    assert not (tmp_path / "folder").exists()

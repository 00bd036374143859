# SPDX-License-Identifier: Apache-2.0
"""docs/guide.md does what it says: its shell blocks, word for word, in one bash process."""

import shutil
import socket
from pathlib import Path

import pytest
from _blocks import ROOT, blocks, environment, one_bash, pattern, script, sections

GUIDE = ROOT / "docs" / "guide.md"
ORIGINAL_PORTS = (5000, 7001, 7003, 7020, 8080, 50002, 50011)
LIMIT_SECONDS = 2400  # two VMs boot, emulated where KVM does not work


def require_free_ports() -> None:
    for port in ORIGINAL_PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError:
                pytest.fail(f"port {port}, which the guide uses, is in use: ss -tlnp | grep {port}")


@pytest.mark.guide
@pytest.mark.vm
@pytest.mark.usefixtures("guide_ports")
@pytest.mark.xdist_group("guide")
@pytest.mark.timeout(2 * LIMIT_SECONDS)  # another run may have to end first
def test_the_guide_works_word_for_word(tmp_path: Path) -> None:
    require_free_ports()
    guide = blocks(GUIDE.read_text("utf-8"))
    folder = tmp_path / "empty"
    for path in (folder, tmp_path / "home", tmp_path / "run"):
        path.mkdir(mode=0o700)
    with one_bash(script(guide), folder, environment(tmp_path)) as bash:
        status = bash.wait(LIMIT_SECONDS)
    printed = sections((tmp_path / "stdout").read_text("utf-8"))
    errors = sections((tmp_path / "stderr").read_text("utf-8"))
    if "end" not in printed:
        last = list(printed)[-1]
        logs = "".join(
            f"\n--- {log.name}\n{log.read_text(errors='replace')[-2000:]}"
            for log in sorted(folder.glob("*.log"))
        )
        block = guide[int(last)]
        pytest.fail(
            f"guide.md:{block.line} failed ({status}):\n{block.code}\n{printed[last]}\n"
            f"{errors.get(last, '')}{logs}"
        )
    for number, block in enumerate(guide):
        if block.expected is not None:
            found = printed[str(number)]
            assert pattern(block.expected).fullmatch(found), (
                f"guide.md:{block.line} shows\n{block.expected}\nbut it printed\n{found}"
            )
    require_free_ports()  # nothing was left behind
    shutil.rmtree(tmp_path / "home")


ORIGINAL = """
openssl genpkey -algorithm ed25519 -out kbs-admin.key
openssl pkey -in kbs-admin.key -pubout -out kbs-admin.pub

  --attestation-token-type CoCo

docker run -d -p 5000:5000 --name registry registry:2

openssl rand -base64 32 > algo.key

-X POST http://localhost:8080/kbs/v0/resource/default/key/algo-key \\
  -H "Authorization: Bearer $(echo -n '{}' | base64)"

skopeo copy \\
  --encryption-key provider:attestation-agent:cc_kbc::kbs:///default/key/algo-key \\
  docker://localhost:5000/lin-reg-algo:v1.0 \\
  docker://localhost:5000/encrypted-lin-reg:v1.0

skopeo copy \\
  --encryption-key provider:attestation-agent:cc_kbc::kbs:///default/key/dataset-key \\
  docker://localhost:5000/iris-dataset:v1.0 \\
  docker://localhost:5000/encrypted-iris:v1.0

HOST_IP=$(ip -4 addr show | grep -oP '(?<=inet\\s)\\d+(\\.\\d+){3}' | grep -v 127.0.0.1 | head -n1)

HOST=$HOST_IP PORT=7001 cvms-test

  -public-key-path ./public.pem \\
  -attested-tls-bool false \\
  -kbs-url http://$HOST_IP:8080 \\
  -algo-type oci-image \\
  -algo-source-url docker://localhost:5000/encrypted-lin-reg:v1.0 \\
  -algo-kbs-path default/key/algo-key \\
  -dataset-type oci-image \\
  -dataset-source-url docker://localhost:5000/encrypted-iris:v1.0 \\
  -dataset-kbs-path default/key/dataset-key

cocos-cli agent create \\
  --manager-url http://localhost:7020 \\
  --cvms-url http://$HOST_IP:7001

skopeo copy \\
  --decryption-key provider:attestation-agent:cc_kbc::null \\
  docker://localhost:5000/encrypted-lin-reg:v1.0 \\
  oci:/tmp/decrypted-algo

skopeo inspect oci:/tmp/decrypted-algo | jq -r '.LayersData[].MIMEType'

ss -tlnp | grep 50011

grpcurl -plaintext 127.0.0.1:50011 list
"""


@pytest.mark.parametrize("command", ORIGINAL.strip("\n").split("\n\n"))
def test_every_command_of_the_original_is_there(command: str) -> None:
    assert command in GUIDE.read_text("utf-8")


@pytest.mark.parametrize(
    ("expected", "printed", "holds"),
    [
        ("200\n", "200", True),
        ("…\n405\n", '{"type": "…"}\n405', True),
        ("Intercept: -3.0014…\n", "Intercept: -3.00145", True),
        ("Intercept: -3.0014…\n", "Intercept: -2.0014", False),
        ("a.c\n", "abc", False),
    ],
)
def test_ellipsis_matches_anything_and_nothing_else_does(
    expected: str, printed: str, *, holds: bool
) -> None:
    assert bool(pattern(expected).fullmatch(printed)) is holds


@pytest.mark.parametrize("name", ["lin_reg.py", "iris.csv", "Dockerfile", "Dockerfile.dataset"])
def test_the_guide_shows_our_example(name: str) -> None:
    assert (ROOT / "examples" / "lin-reg" / name).read_text("utf-8") in GUIDE.read_text("utf-8")

# SPDX-License-Identifier: Apache-2.0
"""``eval "$(cocos-cli env)"`` in real shells."""

import asyncio
import json
import shlex
import sys
from functools import partial
from pathlib import Path

import pytest

from cocos.cli.owner.env import GUIDE_PROGRAMS, shell_code
from cocos.host import process
from cocos.host.images.skopeo import Skopeo
from cocos.transport.rpc import Service, serve
from cocos.wire._generated import manager_pb2_grpc as pb_grpc

pytestmark = pytest.mark.integration

BIN = Path(sys.executable).parent


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """Stand-ins that print what they were given, in a folder with an awkward name."""
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    for name in GUIDE_PROGRAMS.values():
        script = folder / name
        script.write_text(
            '#!/bin/sh\necho "$0|$HOST|$PORT|$*"\nfor each; do echo "[$each]"; done\n'
        )
        script.chmod(0o755)
    return folder


async def shell(code: str, text: str, *argv: str) -> str:
    script = f"{code}\n{text}\n"
    done = await process.run([*argv, "-c", script])
    assert done.stderr == b""
    return done.stdout.decode()


@pytest.mark.parametrize("line", GUIDE_PROGRAMS)
async def test_the_guides_command_lines(programs: Path, line: str) -> None:
    code = shell_code({"A": "x y"}, programs)
    out = await shell(code, f'{line} -a "b c" --d=\\"', "bash", "-eu")
    assert out == f'{programs}/{GUIDE_PROGRAMS[line]}|||-a b c --d="\n[-a]\n[b c]\n[--d="]\n'


async def test_variables_before_a_command_reach_it_and_do_not_stay(programs: Path) -> None:
    text = 'HOST=10.0.0.1 PORT=7001 ./build/cvms-test -x; echo "${HOST-unset}"'
    out = await shell(shell_code({}, programs), text, "bash", "-eu")
    assert "|10.0.0.1|7001|-x\n" in out
    assert out.endswith("unset\n")


async def test_the_exit_code_comes_back(programs: Path) -> None:
    (programs / "kbs").write_text("#!/bin/sh\ncat\nexit 7\n")
    text = "echo in | ./target/release/kbs || echo $?; (./target/release/kbs </dev/null) || echo $?"
    assert await shell(shell_code({}, programs), text, "bash") == "in\n7\n7\n"


async def test_ending_a_background_job_ends_the_program(programs: Path, tmp_path: Path) -> None:
    (programs / "kbs").write_text(
        f"#!/bin/sh\ntrap 'echo ended; exit 3' TERM\ntouch {shlex.quote(str(tmp_path))}/up\n"
        "while :; do sleep 0.01; done\n"
    )
    text = (
        f"./target/release/kbs & pid=$!; until [ -e {shlex.quote(str(tmp_path))}/up ]; do :; done; "
        "kill $pid; wait $pid; echo $?"
    )
    assert await shell(shell_code({}, programs), text, "bash") == "ended\n3\n"


@pytest.mark.parametrize("argv", [("dash",), ("sh",), ("bash", "--posix"), ("bash", "-eu")])
async def test_every_shell_takes_it(programs: Path, argv: tuple[str, ...]) -> None:
    code = shell_code({"PATH": "/new:/two words", "X": "a'b$c`d\"e"}, programs)
    out = await shell(code, 'printf "%s\\n" "$PATH" "$X"', *argv)
    path, value = out.splitlines()
    assert path.startswith("/new:/two words:/")
    assert value == "a'b$c`d\"e"


async def test_the_real_one_gives_a_skopeo_that_knows_key_providers(
    tool: Skopeo, tmp_path: Path
) -> None:
    assert tool.argv
    env = f'eval "$({shlex.quote(str(BIN / "cocos-cli"))} env --original-paths)"'
    text = (
        f"set -e; {env}; {env}; command -v skopeo cocos-cli; skopeo --version; "
        'cat "$OCICRYPT_KEYPROVIDER_CONFIG" "$CONTAINERS_REGISTRIES_CONF"; '
        f"cd {shlex.quote(str(tmp_path))}; ./build/cocos-cli --help"
    )
    out = await shell("", text, "bash")
    assert '{"key-providers":{"attestation-agent":{"grpc":"127.0.0.1:50011"}}}' in out
    assert "skopeo version 1." in out
    assert str(BIN / "cocos-cli") in out
    assert out.count("insecure = true") == 3
    assert "Usage: cocos-cli" in out
    json.loads((await process.run([BIN / "cocos-cli", "env", "--json"])).stdout)


async def test_a_folder_s_own_programs_run_unless_asked_otherwise(tmp_path: Path) -> None:
    own = tmp_path / "build" / "cocos-cli"
    own.parent.mkdir()
    own.write_text("#!/bin/sh\necho its own\n")
    own.chmod(0o755)
    code = shell_code({"A": "x"}, None)
    text = f"cd {shlex.quote(str(tmp_path))}; ./build/cocos-cli"
    assert await shell(code, text, "bash") == "its own\n"


async def test_a_failure_stops_the_script(tmp_path: Path) -> None:
    """Without cache, mmdebstrap and Skopeo there is nothing to name: eval must not look fine."""
    cli = shlex.quote(str(BIN / "cocos-cli"))
    done = await process.run(
        ["/bin/sh", "-c", f'set -e; eval "$({cli} env)"; echo went on'],
        env={"PATH": "/nowhere", "XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)},
        check=False,
    )
    assert done.exit_status != 0
    assert b"went on" not in done.stdout


async def grpcurl(*words: str, check: bool = True) -> process.Completed:
    return await process.run([sys.executable, "-m", "cocos.cli.owner.grpcurl", *words], check=check)


async def test_grpcurl_lists_and_describes() -> None:
    servicer = pb_grpc.ManagerServiceServicer()  # type: ignore[abstract]  # nobody calls it
    register = partial(pb_grpc.add_ManagerServiceServicer_to_server, servicer)
    async with serve("127.0.0.1:0", [Service("manager.ManagerService", register)]) as address:
        listed = await grpcurl("-plaintext", address, "list")
        assert "manager.ManagerService" in listed.stdout.decode().splitlines()
        methods = await grpcurl("-plaintext", address, "list", "manager.ManagerService")
        assert "manager.ManagerService.CreateVm" in methods.stdout.decode().splitlines()
        described = await grpcurl("-plaintext", address, "describe", "manager.ManagerService")
        assert b"rpc Logs ( .manager.LogsReq ) returns ( stream .manager.LogsRes );" in (
            described.stdout
        )
        message = await grpcurl("-plaintext", address, "describe", "manager.ListRes")
        assert b"  repeated .manager.Cvm cvms = 1;" in message.stdout
        unknown = await grpcurl("-plaintext", address, "list", "no.Service", check=False)
        assert unknown.exit_status == 66
        assert b"no.Service" in unknown.stderr
        streams = await grpcurl("-plaintext", address, "manager.ManagerService/Logs", check=False)
        assert streams.exit_status == 2
        assert b"streams" in streams.stderr
    tls = await grpcurl(address, "list", check=False)
    assert b"-plaintext" in tls.stderr


async def test_grpcurl_names_a_server_that_is_not_there() -> None:
    server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    code = (
        "from cocos.cli.owner import grpcurl\ngrpcurl.CALL_SECONDS = 0.3\nimport sys\n"
        f"sys.argv = ['grpcurl', '-plaintext', '127.0.0.1:{port}', 'list']\ngrpcurl.main()\n"
    )
    done = await process.run([sys.executable, "-c", code], check=False)
    assert done.exit_status == 69
    assert f"127.0.0.1:{port}".encode() in done.stderr

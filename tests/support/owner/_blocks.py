# SPDX-License-Identifier: Apache-2.0
"""The shell blocks of a page, run word for word in one bash process."""

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
STOP_SECONDS = 20
MARK = "=== block "
INSIDE = "ssh -F ssh.config cvm bash -euo pipefail -s"

_BLOCK = re.compile(r"^```([\w ]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Block:
    """A shell block and the output that the guide shows for it."""

    line: int
    code: str
    expected: str | None
    inside: bool  # a VM, by SSH


def blocks(text: str) -> list[Block]:
    found: list[Block] = []
    end = -1
    for match in _BLOCK.finditer(text):
        language, body = match[1], match[2]
        if language in {"bash", "bash cvm"}:
            line = text.count("\n", 0, match.start()) + 2
            found.append(Block(line, body, None, inside=language == "bash cvm"))
        elif language == "text":
            between = text[end : match.start()]
            assert found, "output before any command"
            assert not between.strip(), f"nothing makes this output: {body}"
            found[-1] = dataclasses.replace(found[-1], expected=body)
        else:
            first = language.partition(" ")[0]  # after sh: why it does not run
            assert first in {"", "sh", "json", "rego", "toml", "proto"}, f"{language}?"
        end = match.end()
    return found


def pattern(expected: str) -> re.Pattern[str]:
    """``…`` stands for anything, the rest for itself."""
    parts = expected.strip().split("…")
    return re.compile(".*".join(re.escape(part.strip("\n")) for part in parts), re.DOTALL)


def script(guide: list[Block]) -> str:
    lines = ["set -euo pipefail"]
    for number, block in enumerate(guide):
        marker = f"{MARK}{number}"
        code = block.code.rstrip("\n")
        if block.inside:
            code = f"{INSIDE} << '{MARK}'\n{code}\n{MARK}"
        lines += [f"echo '{marker}'; echo '{marker}' >&2", code]
    return "\n".join([*lines, f"echo '{MARK}end'; echo '{MARK}end' >&2", ""])


def sections(output: str) -> dict[str, str]:
    """Split what was printed at our markers."""
    found = {}
    for part in output.split(MARK)[1:]:
        name, _, text = part.partition("\n")
        found[name] = text.strip()
    return found


@contextlib.contextmanager
def one_bash(code: str, folder: Path, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a script; at the end nothing that it started is left."""
    file = folder.parent / "guide.sh"
    file.write_text(code)
    with (
        (folder.parent / "stdout").open("wb") as stdout,
        (folder.parent / "stderr").open("wb") as stderr,
        subprocess.Popen(
            ["bash", file],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        ) as bash,
    ):
        try:
            yield bash
        finally:
            stop_group(bash)


def stop_group(bash: subprocess.Popen[bytes]) -> None:
    """Let the servers of a guide that failed stop in order, and kill those that do not."""
    deadline = time.monotonic() + STOP_SECONDS
    with contextlib.suppress(ProcessLookupError):
        os.killpg(bash.pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            bash.poll()  # reaps it: a zombie would keep the group alive
            os.killpg(bash.pid, 0)
            time.sleep(0.05)
        os.killpg(bash.pid, signal.SIGKILL)


def environment(tmp_path: Path) -> dict[str, str]:
    """A user who has never used any of this, but has our cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    store = Path(cache) / "cocos" / "buildah"
    kept = {name: os.environ[name] for name in os.environ if name.startswith(("PIP_", "SSL_"))}
    return {
        **kept,
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "HOME": str(tmp_path / "home"),
        "XDG_CACHE_HOME": cache,
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "CONTAINERS_STORAGE_CONF": str(store / "storage.conf"),
        "MANAGER_STATE_FOLDER": str(tmp_path / "manager"),
        "COCOS": str(ROOT),
    }

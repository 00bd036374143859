# SPDX-License-Identifier: Apache-2.0
"""Choose versions of all dependencies and write them, with hashes.

The files name no index: whichever one the machine is set up for must serve the bytes
that the hashes name.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMON = [
    "--generate-hashes",
    "--no-header",
    "--no-emit-index-url",
    "--no-emit-find-links",
    "--upgrade",
    "--quiet",
]
TARGETS = {
    "requirements/run.txt": ["pyproject.toml", "--python-version=3.11", "--universal"],
    "requirements/dev.txt": [
        "pyproject.toml",
        "--group=dev",
        "--python-version=3.11",
        "--universal",
    ],
    # The example algorithm's image is Debian 13, whose Python is 3.13.
    "requirements/lin-reg.txt": [
        "requirements/lin-reg.in",
        "--python-version=3.13",
        "--universal",
    ],
    # The guest is Debian 13, too; what runs there is what was tested here.
    "src/cocos/image/guest/requirements.txt": [
        "requirements/guest.in",
        "--constraint=requirements/run.txt",
        "--python-version=3.13",
        "--python-platform=x86_64-manylinux_2_28",
    ],
}


def main() -> None:
    """Write every lock file."""
    uv = str(Path(sys.executable).parent / "uv")
    # uv reads pip's variables only under its own names.
    env = {**os.environ}
    if "PIP_INDEX_URL" in env:
        env.setdefault("UV_DEFAULT_INDEX", env["PIP_INDEX_URL"])
    for name, sources in TARGETS.items():
        argv = [uv, "pip", "compile", *sources, *COMMON, "--output-file", name]
        subprocess.run(argv, cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)
        print(f"lock: wrote {name}")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Make ``cocos.wire._generated`` from ``proto/``; with ``--check`` only compare."""

import filecmp
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path("cocos/wire/_generated")
TARGET = ROOT / "src" / PACKAGE


def generate(out: Path) -> None:
    """Write the stubs of every file in ``proto/`` below ``out``.

    Args:
        out: Folder that stands for ``src``; must exist.
    """
    well_known = files("grpc_tools") / "_proto"
    sources = sorted((ROOT / "proto").glob("*.proto"))
    scripts = Path(sys.executable).parent
    status = protoc.main(
        [
            "protoc",
            # The virtual folder makes protoc write absolute imports of our package.
            f"-I{PACKAGE}={ROOT / 'proto'}",
            f"-I{well_known}",
            # By path: .venv/bin need not be on PATH.
            f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
            f"--python_out={out}",
            f"--mypy_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_grpc_out={out}",
            *(str(PACKAGE / source.name) for source in sources),
        ]
    )
    if status:
        raise SystemExit(status)
    (out / PACKAGE / "__init__.py").write_text('"""Made by tools/generate_stubs.py."""\n')


def main() -> None:
    """Regenerate the stubs, or say which of them are out of date."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = Path(folder) / PACKAGE
        names = sorted({p.name for d in (fresh, TARGET) if d.is_dir() for p in d.glob("*.py*")})
        _, changed, missing = filecmp.cmpfiles(fresh, TARGET, names, shallow=False)
        stale = sorted({*changed, *missing})
        if "--check" in sys.argv[1:]:
            if stale:
                raise SystemExit(f"stubs out of date: {', '.join(stale)}; run make proto")
            return
        TARGET.mkdir(parents=True, exist_ok=True)
        for name in stale:
            if (fresh / name).exists():
                (TARGET / name).write_bytes((fresh / name).read_bytes())
            else:
                (TARGET / name).unlink()


if __name__ == "__main__":
    main()

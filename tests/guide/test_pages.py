# SPDX-License-Identifier: Apache-2.0
"""docs/first-program.md does what it says, and beside its KBS the other pages do."""

import shutil
from pathlib import Path

import pytest
from _blocks import ROOT, Block, blocks, environment, one_bash, pattern, script, sections

DOCS = ROOT / "docs"
FIRST = DOCS / "first-program.md"
OTHERS = sorted(path for path in DOCS.rglob("*.md") if path not in {FIRST, DOCS / "guide.md"})
LIMIT_SECONDS = 900


def shown() -> list[tuple[Path, Block]]:
    """The first program, then all that needs what it started, then its last words: stop."""
    *first, stop = [(FIRST, block) for block in blocks(FIRST.read_text("utf-8"))]
    others = [(page, block) for page in OTHERS for block in blocks(page.read_text("utf-8"))]
    return [*first, *others, stop]


@pytest.mark.guide
@pytest.mark.usefixtures("guide_ports")
@pytest.mark.xdist_group("guide")
@pytest.mark.timeout(3 * LIMIT_SECONDS)  # another run may have to end first
def test_pages_work_word_for_word(tmp_path: Path) -> None:
    pages = shown()
    assert len({page for page, _ in pages}) > 5
    folder = tmp_path / "empty"
    for path in (folder, tmp_path / "home", tmp_path / "run"):
        path.mkdir(mode=0o700)
    code = script([block for _, block in pages])
    with one_bash(code, folder, environment(tmp_path)) as bash:
        status = bash.wait(LIMIT_SECONDS)
    printed = sections((tmp_path / "stdout").read_text("utf-8"))
    errors = sections((tmp_path / "stderr").read_text("utf-8"))
    for number, (page, block) in enumerate(pages):
        found = printed.get(str(number), "")
        where = f"{page.relative_to(ROOT)}:{block.line}"
        if "end" not in printed:
            assert str(number + 1) in printed, (
                f"{where} failed ({status}):\n{block.code}\n{found}\n{errors.get(str(number))}"
            )
        if block.expected is not None:
            assert pattern(block.expected).fullmatch(found), (
                f"{where} shows\n{block.expected}\nbut it printed\n{found}"
            )
    shutil.rmtree(tmp_path / "home")

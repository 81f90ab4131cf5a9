"""What stands on the pages: blocks of code, output and settings, each of which a test asks for and tries.

Ask with page, language and words written out, not with variables: `test_docs` reads the calls of all tests,
and fails if there is a block that none of them asks for.
"""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).resolve().parents[1]

FENCE = re.compile(r"^( *)```(\S*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a page."""

    page: str
    line: int
    language: str
    code: str

    def answers(self, page: str, language: str | None = None, having: str = "") -> bool:
        """Whether it is one that was asked for; *page* may have stars."""
        return fnmatchcase(self.page, page) and language in {None, self.language} and having in self.code


def pages() -> list[Path]:
    """Every page of the checkout, wherever it lies."""
    folders = [folder for folder in ROOT.iterdir() if folder.is_dir() and not folder.name.startswith(".")]
    return sorted([*ROOT.glob("*.md"), *(page for folder in folders for page in folder.rglob("*.md"))])


def named(page: Path) -> str:
    """What it is called here."""
    return str(page.relative_to(ROOT))


def blocks_of(page: Path) -> list[Block]:
    """All of its blocks, those in lists included."""
    text = page.read_text(encoding="utf-8")
    found = [
        Block(named(page), text.count("\n", 0, each.start()) + 1, each[2], dedent(each[3]))
        for each in FENCE.finditer(text)
    ]
    fences = [line for line in text.splitlines() if line.lstrip().startswith(("```", "~~~"))]
    assert len(fences) == 2 * len(found), f"{named(page)} has a block that cannot be read"
    return found


def blocks(page: str, language: str | None = None) -> list[str]:
    """All blocks of *page*, or those in *language*, in their order."""
    return [each.code for each in blocks_of(ROOT / page) if each.answers(page, language)]


def block(page: str, language: str, having: str) -> str:
    """The one block of *page* in *language* in which *having* stands."""
    found = [each.code for each in blocks_of(ROOT / page) if each.answers(page, language, having)]
    assert len(found) == 1, f"{page} shows {len(found)} blocks of {language} with {having!r}"
    return found[0]

"""Run the demo on a pseudo-terminal and draw the final screen as docs/demo.svg, which the README shows."""

import os
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

TERMINAL_COLUMNS = 124
PICTURE_PATH = Path(__file__).resolve().parents[1] / "docs" / "demo.svg"

WITHOUT_FONTS = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
"""rich's template without the font rules, so that a reader's browser fetches no fonts from other sites."""


def played() -> str:
    """Run the demo and return the bytes written to the terminal, decoded."""
    terminal, inside = os.openpty()
    settings = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": str(TERMINAL_COLUMNS), "LINES": "40"}
    command = [sys.executable, "-m", "smoothcluster", "demo"]
    with subprocess.Popen(command, stdin=inside, stdout=inside, stderr=inside, env=os.environ | settings) as process:
        os.close(inside)
        written = b""
        try:
            while chunk := os.read(terminal, 65536):
                written += chunk
        except OSError:  # Reading from a terminal fails when its last program has ended.
            pass
        os.close(terminal)
    if process.returncode:
        sys.exit(f"the demo ended with {process.returncode}:\n{written.decode()}")
    return written.decode()


def seen(written: str) -> Text:
    """Return the text left on the screen. Each redraw of a progress bar replaces the previous bar."""
    lines = [re.split(r"\r|\x1b\[2K", line)[-1] for line in written.replace("\r\n", "\n").split("\n")]
    return Text.from_ansi("\n".join(re.sub(r"\x1b\[\?25[lh]", "", line) for line in lines).rstrip())


def draw(written: str, picture: Path) -> None:
    """Write the final screen to *picture* as SVG."""
    console = Console(record=True, width=TERMINAL_COLUMNS, file=StringIO(), force_terminal=True)
    console.print(Text("$ smoothcluster demo", style="bold"))
    console.print(seen(written))
    picture.write_text(
        console.export_svg(title="smoothcluster", code_format=WITHOUT_FONTS, unique_id="demo"), encoding="utf-8"
    )
    print(f"{picture} is new")


if __name__ == "__main__":
    draw(played(), PICTURE_PATH)

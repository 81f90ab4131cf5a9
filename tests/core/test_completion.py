"""``smoothcluster completion``: shells complete what there is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_kit import invoke_on, one_line

COMMAND = f"""#!{sys.executable}
import sys
sys.argv[0] = "smoothcluster"
from smoothcluster.cli import main
main()
"""


@pytest.mark.parametrize(("words", "found"), [("st", {"status"}), ("run --mem", {"--members"})])
def test_bash_completes_commands_and_options(tmp_path: Path, words: str, found: set[str]) -> None:
    """The script that is printed has the shell ask the command itself."""
    command = tmp_path / "smoothcluster"
    command.write_text(COMMAND)
    command.chmod(0o700)
    script = invoke_on("memory://")("completion", "bash").stdout
    typed = f"COMP_WORDS=(smoothcluster {words}); COMP_CWORD={len(words.split())}; COMPREPLY=()"
    show = '_smoothcluster_completion smoothcluster; echo "${COMPREPLY[*]}"'
    done = subprocess.run(
        ["bash", "-c", f"{script}\n{typed}\n{show}"],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert set(done.stdout.split()) == found


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_script(shell: str) -> None:
    """Another is a mistake."""
    assert f"_SMOOTHCLUSTER_COMPLETE={shell}_complete" in invoke_on("memory://")("completion", shell).stdout
    assert "is not one of 'bash', 'zsh', 'fish'" in one_line(invoke_on("memory://")("completion", "cmd"), 2)

"""``smoothcluster completion``: print a script for shell completion with the Tab key."""

import click
from click.shell_completion import get_completion_class

from smoothcluster.cli.common import verbose

COMPLETION_VARIABLE = "_SMOOTHCLUSTER_COMPLETE"
"""The environment variable by which the shell asks for completions. click forms the name from the program's."""


SETUP_EPILOG = """\b
bash, in ~/.bashrc:                    eval "$(smoothcluster completion bash)"
zsh, in ~/.zshrc:                      autoload -Uz compinit && compinit && eval "$(smoothcluster completion zsh)"
fish, in ~/.config/fish/config.fish:   smoothcluster completion fish | source
"""


@click.command(epilog=SETUP_EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@verbose
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script for shell completion of commands and options."""
    kind = get_completion_class(shell)
    assert kind is not None, "click knows each of the shells to choose from"
    print(kind(ctx.find_root().command, {}, "smoothcluster", COMPLETION_VARIABLE).source())

"""`sknet completion bash | zsh | fish`: the script that makes a shell complete the commands of sknet, and their flags."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

PROGRAM = "sknet"
SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes commands and flags, to be read by the shell at its start.

    \b
    bash:  sknet completion bash > ~/.local/share/bash-completion/completions/sknet
    zsh:   sknet completion zsh > ~/.zfunc/_sknet   (a folder in fpath, before compinit)
    fish:  sknet completion fish > ~/.config/fish/completions/sknet.fish
    """
    kind = get_completion_class(shell)
    if kind is None:  # a shell that click has given up
        raise click.ClickException(f"no script can be made for {shell}")
    click.echo(kind(context.find_root().command, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE").source())

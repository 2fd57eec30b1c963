"""`sknet keys new`: a fresh key, and the line of the file that lets it in. Nothing is stored."""

from __future__ import annotations

import secrets

import click

from app.keys import PREDICT, SCOPES, is_name, new_key
from app.program import Program


@click.group(cls=Program)
def keys() -> None:
    """Keys that open a service."""


@keys.command()
@click.option("--scope", "scopes", type=click.Choice(SCOPES), default=PREDICT, show_default=True, help="What it may do.")
@click.option("--name", default=None, metavar="NAME", help="Its name in the log; made up where not given.")
def new(scopes: str, name: str | None) -> None:
    """Make a key. It is shown this once: the line for SKNET_API_KEYS_FILE holds only its SHA-256."""
    name = f"key-{secrets.token_hex(3)}" if name is None else name
    if not is_name(name):
        raise click.BadParameter("1 to 64 letters, digits, dots, dashes or underscores", param_hint="--name")
    key, entry = new_key(name, scopes)
    click.echo("The key, for whoever calls the service; it is not shown again:", err=True)
    click.echo(key)
    click.echo("Its line in the file that SKNET_API_KEYS_FILE names:", err=True)
    click.echo(entry)

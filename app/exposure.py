"""What whoever starts a service should hear about who can reach it and what they may do."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from app.keys import Keys
from app.settings import Settings


def warnings_of(settings: Settings, keys: Keys | None, behind: str | None = None) -> Iterator[str]:
    """A line for each thing that is open, or easily left so by mistake. Nothing for a service of this machine alone.

    `behind` names what others reach in its place, wherever that listens: the service does not know.
    """
    if keys is None and behind is not None:
        yield (
            f"there are no API keys: whoever reaches {behind} may classify. "
            "Set SKNET_API_KEYS_FILE (sknet keys new makes a key) or SKNET_API_KEYS"
        )
    elif keys is None and not is_loopback(settings.host):
        yield (
            f"there are no API keys: whoever reaches {settings.host}, port {settings.port}, may classify. "
            "Set SKNET_API_KEYS_FILE (sknet keys new makes a key) or SKNET_API_KEYS, or listen with SKNET_HOST=127.0.0.1"
        )
    if settings.open_admin and keys is None:
        yield "SKNET_OPEN_ADMIN is on: whoever reaches the service may load and unload models"
    if settings.open_admin and keys is not None:
        yield "SKNET_OPEN_ADMIN does nothing here: there are keys, and admin calls need one of the scope admin"
    if keys is not None and keys.file_gives_keys_away:
        yield (
            f"every user of this machine can read {settings.api_keys_file}, which holds keys as they are: chmod o-r, or hold "
            "digests instead, as sknet keys new prints them"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it. A name other than localhost may be anything."""
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"

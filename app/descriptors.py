"""How many files this process may have open, and how many connections that leaves room for. Knows no connection."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress

logger = logging.getLogger("sknet.service")

MOST_FILES = 65_536  # asked for at most: the kernel's table for them, and what each connection takes, are memory
RESERVE = 128  # for all but connections: libraries, weights, channels, helper processes
EACH = 2  # a connection, and the file, or the socket to where its image lies, that its request has open
MOST_CONNECTIONS = 10_000  # where nobody chose: an idle one takes some 8 kB


def raise_limit() -> None:
    """Raise this process's limit on open files as far as it may and makes sense."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # a sandbox forbids it: the limit stays as it was
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def limit() -> int:
    """How many files this process may have open."""
    if sys.platform == "win32":
        return MOST_FILES
    import resource

    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST_FILES if soft == resource.RLIM_INFINITY else soft


def connection_limit(asked: int, files: int) -> int:
    """Most connections of a process that may have so many files open; `asked` is what the settings say, 0 for nothing.

    More than the files allow is cut down and logged: at the limit on files nothing works any more, not even the closing of
    connections in favour of others.
    """
    room = max(1, (files - RESERVE) // EACH)
    if asked > room:
        logger.warning("%d connections need %d open files, but %d are allowed: the limit is %d connections",
                       asked, asked * EACH + RESERVE, files, room)  # fmt: skip
    return min(asked or MOST_CONNECTIONS, room)

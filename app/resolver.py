"""Names -> addresses by the system's resolver, without letting a slow one hold anything up. Judges no address."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from app.errors import Overloaded

LOOKUPS = 64  # at once: a name server that never answers keeps a thread for as long as the system's resolver has patience

Resolve = Callable[[str], Awaitable[Sequence[str]]]  # host name -> addresses as text; OSError where there are none
LookUp = Callable[[str], Sequence[str]]


class Resolver:
    """Looks names up in threads of its own, since the loop's are for other work.

    They are daemons: the C library cannot be told to give up, and must not hold up the end of the process either.
    """

    def __init__(self, look_up: LookUp | None = None, lookups: int = LOOKUPS) -> None:
        self._look_up = look_up or look_up_by_system
        self._lookups = lookups
        self._busy = 0  # changed in the loop only

    async def __call__(self, host: str) -> Sequence[str]:
        """Every address of a host, as text, in the resolver's order. May be given up at any time.

        Raises:
            OSError: there are none.
            Overloaded: too many are looked up already.
        """
        if self._busy >= self._lookups:
            raise Overloaded("names looked up at once", self._lookups, 1)
        loop = asyncio.get_running_loop()
        found: asyncio.Future[Sequence[str]] = loop.create_future()

        def settle(addresses: Sequence[str], error: Exception | None) -> None:
            self._busy -= 1  # only now: whoever waited may have left long ago
            if found.cancelled():
                return
            if error is None:
                found.set_result(addresses)
            else:
                found.set_exception(error)

        def work() -> None:
            addresses: Sequence[str] = ()
            failure = None
            try:
                addresses = self._look_up(host)
            except Exception as error:  # noqa: BLE001 - whatever it is goes to whoever waits
                failure = error
            with suppress(RuntimeError):  # the loop may be gone by now
                loop.call_soon_threadsafe(settle, addresses, failure)

        self._busy += 1
        try:
            threading.Thread(target=work, name="resolver", daemon=True).start()
        except RuntimeError:  # the process may have no more threads
            self._busy -= 1
            raise Overloaded("names looked up at once", self._lookups, 1) from None
        return await found


def look_up_by_system(host: str) -> list[str]:
    """Addresses of a host, each once.

    The dot at the end makes the name absolute: the search list of `resolv.conf` would lead into the network the service runs in.
    """
    found = socket.getaddrinfo(f"{host}.".encode("ascii"), None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))

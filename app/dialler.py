"""Connections to public addresses only: a host is resolved once, all its addresses are checked, and one of those is called.

Between check and connection nothing is looked up again, so a name that changes its mind (DNS rebinding) gains nothing.
Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address

from app.errors import SourceUnreachable
from app.netguard import IPAddress, refusal, refusal_of_name
from app.resolver import Resolve
from app.urls import Target

ADDRESSES = 4  # of one host that are tried at most, one after the other
TRY_S = 1.5  # for each but the last: a host may have an IPv6 address that does not answer

Judge = Callable[[IPAddress, int], str | None]  # (address, port) -> why nobody may be called there
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class NotPublic(Exception):
    """No public address. The text is for the log: what the client is told must not describe the network inside."""


def judge(address: IPAddress, port: int) -> str | None:
    """`netguard`'s word, whatever the port."""
    return refusal(address)


class Dialler:
    """Opens connections. `judge` says which addresses are refused; tests allow their own server."""

    def __init__(self, resolve: Resolve, tls: ssl.SSLContext, judge: Judge = judge) -> None:
        self._resolve = resolve
        self._tls = tls
        self._judge = judge

    async def open(self, target: Target) -> Streams:
        """A connection to where `target` leads, secured for its host's name where it says https.

        Raises:
            NotPublic: one of its addresses is not, or it has none; nothing was sent anywhere.
            SourceUnreachable: nobody answered, or not with a certificate for that name.
        """
        addresses = (await self._addresses(target))[:ADDRESSES]
        for address in addresses[:-1]:
            with suppress(OSError, TimeoutError, SourceUnreachable):  # nobody there, or nobody who speaks TLS
                async with asyncio.timeout(TRY_S):
                    return await self._secured(await self._connected(address, target.port), target)
        try:
            connection = await self._connected(addresses[-1], target.port)
        except OSError:
            raise SourceUnreachable("the image could not be fetched: its server does not answer") from None
        return await self._secured(connection, target)

    async def _addresses(self, target: Target) -> Sequence[IPAddress]:
        if target.address is not None:
            addresses: list[IPAddress] = [target.address]
        else:
            what = refusal_of_name(target.host)
            if what is not None:
                raise NotPublic(f"{target.host} is {what}")
            try:
                addresses = [ip_address(text) for text in await self._resolve(target.host)]
            except (OSError, ValueError):
                addresses = []
        if not addresses:
            raise NotPublic(f"{target.host} has no address")
        for address in addresses:  # one among many is enough: it would be called by the next request
            what = self._judge(address, target.port)
            if what is not None:
                raise NotPublic(f"{target.host} is {address}: {what}")
        return addresses

    async def _connected(self, address: IPAddress, port: int) -> socket.socket:
        connection = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            await asyncio.get_running_loop().sock_connect(connection, (str(address), port))
            peer = connection.getpeername()
            # What was checked is what is there: nothing on this machine may have led the connection elsewhere unseen.
            if ip_address(peer[0]) != address or peer[1] != port:
                raise NotPublic(f"{address} turned out to be {peer[0]}")
        except BaseException:
            connection.close()
            raise
        return connection

    async def _secured(self, connection: socket.socket, target: Target) -> Streams:
        # From here on the loop owns the socket, and closes it where this fails.
        try:
            if target.scheme == "http":
                return await asyncio.open_connection(sock=connection)
            return await asyncio.open_connection(sock=connection, ssl=self._tls, server_hostname=target.host)
        except (OSError, EOFError) as error:  # ssl's errors are kinds of the first
            why = "its certificate is not valid for that name" if isinstance(error, ssl.SSLCertVerificationError) else "no TLS"
            raise SourceUnreachable(f"the image could not be fetched: its server gives no secure connection ({why})") from None

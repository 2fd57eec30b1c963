"""Who may do what: keys and their scopes, admin calls, rates. Asked for every request before its body is read.

One table says what is open; what is not in it needs a key, so that a route added later is closed until somebody lists it. The
path is compared as the router compares it (decoded, and nothing tidied up), so no other spelling of a path is open. Where the
router is less exact, with a newline at the end, the path is refused right after this (`app.bodies`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Set
from ipaddress import IPv6Address

from starlette.types import Scope

from app.context import context_of
from app.errors import AppError, RateLimited, ScopeForbidden, Unauthorised
from app.keys import ADMIN, PREDICT, Key, Keys
from app.rates import Rates

# GET (and HEAD) of these needs no key and counts for no rate: probes, the documentation, pages. All else does.
OPEN = frozenset(
    {"/", "/favicon.ico", "/livez", "/readyz", "/healthz", "/metrics", "/docs", "/redoc", "/openapi.json", "/problems"}
    | {"/v2/health/live", "/v2/health/ready", "/ping"}  # probes of other protocols whose place is fixed
)
OPEN_BELOW = ("/static/", "/problems/")
ADMIN_BELOW = ("/models/", "/v2/repository/models/")  # POST of what lies two steps or more below, such as /models/NAME/load
MOST_PAIRS = 10_000  # of an address and a key that were seen together

Gate = Callable[[Scope], AppError | None]  # why the request is refused


def needed(method: str, path: str, probes: Set[str] = frozenset()) -> str | None:
    """The scope that a request needs; None where it needs no key at all. `probes` are open as well: the settings place them."""
    if method in ("GET", "HEAD"):
        return None if path in OPEN or path in probes or path.startswith(OPEN_BELOW) else PREDICT
    if method == "POST" and any(path.startswith(start) and "/" in path[len(start) :] for start in ADMIN_BELOW):
        return ADMIN
    return PREDICT


def gate_of(keys: Keys | None, rates: Rates | None, *, open_admin: bool, probes: Set[str] = frozenset()) -> Gate:
    """What is to be asked for each request; `probes` as for `needed`."""
    return _Keyless(rates, probes, open_admin=open_admin) if keys is None else _Keyed(keys, rates, probes)


class _Keyless:
    """Without keys anybody may predict; admin calls are closed unless the settings open them."""

    def __init__(self, rates: Rates | None, probes: Set[str], *, open_admin: bool) -> None:
        self._rates = rates
        self._probes = probes
        self._open_admin = open_admin

    def __call__(self, scope: Scope) -> AppError | None:
        if self._rates is None and scope["method"] != "POST":
            return None
        need = needed(scope["method"], _route_path(scope), self._probes)
        if need is not None and self._rates is not None and (refused := self._rates.take(_address(scope))) is not None:
            return refused
        if need == ADMIN and not self._open_admin:
            return ScopeForbidden(
                "admin calls are closed: the service has no keys (SKNET_API_KEYS_FILE), and SKNET_OPEN_ADMIN is off", ADMIN
            )
        if need == ADMIN and _from_a_foreign_page(scope):
            return ScopeForbidden("pages of other origins make no admin calls without a key", ADMIN)
        return None


class _Keyed:
    """With keys, everything but what is open needs one of the right scope."""

    def __init__(self, keys: Keys, rates: Rates | None, probes: Set[str]) -> None:
        self._keys = keys
        self._rates = rates
        self._probes = probes
        self._pairs: OrderedDict[tuple[str, str], None] = OrderedDict()  # of an address and a key's name, the oldest first

    def __call__(self, scope: Scope) -> AppError | None:
        need = needed(scope["method"], _route_path(scope), self._probes)
        if need is None:
            return None
        presented = _presented(scope)
        if not presented:
            return Unauthorised(given=False)
        key = self._keys.find(presented.pop()) if len(presented) == 1 else None
        if self._rates is not None and (refused := self._limit(self._rates, _address(scope), key)) is not None:
            return refused
        if key is None:
            return Unauthorised(given=True)
        context_of(scope).key = key.name
        if need not in key.scopes:
            return ScopeForbidden(f"this key may {' and '.join(sorted(key.scopes))}; the call needs the scope {need}", need)
        return None

    def _limit(self, rates: Rates, address: str, key: Key | None) -> RateLimited | None:
        """Wrong keys are counted by address. One that guessed too often learns nothing more, not even of the right key; keys
        that were good from there before it did stay good, so that it locks out nobody who shares its address.
        """
        if key is None:
            return rates.take(address)
        pair = (address, key.name)
        if pair not in self._pairs and (refused := rates.refusal(address)) is not None:
            return refused
        self._pairs[pair] = None
        self._pairs.move_to_end(pair)
        if len(self._pairs) > MOST_PAIRS:
            self._pairs.popitem(last=False)
        return rates.take(f"key {key.name}")


def _presented(scope: Scope) -> set[bytes]:
    """The keys that came with a request: `Authorization: Bearer KEY` (RFC 6750) or `X-API-Key: KEY`. More than one is none."""
    found = set()
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            found.add(value.strip())
        elif name == b"authorization" and value[:7].lower() == b"bearer ":  # other schemes are a proxy's business
            found.add(value[7:].strip())
    return found


def _from_a_foreign_page(scope: Scope) -> bool:
    """Whether a browser sends this for a page from elsewhere, whose reader may know nothing of it (RFC 6454, section 7)."""
    headers = dict(scope["headers"])
    origin = headers.get(b"origin")
    return origin is not None and origin.partition(b"://")[2].lower() != headers.get(b"host", b"").lower()


def _route_path(scope: Scope) -> str:
    """The path below the prefix that the application is mounted at, if any."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _address(scope: Scope) -> str:
    """Who asks, for want of a key: the address, of IPv6 its /64, which is what one subscriber gets (RFC 6177).

    In words that are no key's, since what a proxy reports of its clients may be anything.
    """
    host: str = (scope.get("client") or ("",))[0] or ""
    if ":" in host:
        try:
            address = IPv6Address(host.partition("%")[0])
        except ValueError:
            pass
        else:
            host = str(address.ipv4_mapped or IPv6Address(int(address) >> 64 << 64))
    return f"address {host[:64]}"

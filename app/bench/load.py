"""Load on a service, and what came of it: by wrk where it is installed, else by `app.bench.client`; a process of its own always.

Compare only figures of one generator: each costs the machine it shares with the service something else.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from app.bench.process import Service

# Posts the bodies in turn; on every thread the same order. The last line of the output is JSON, times in microseconds.
LUA = """
local requests, turn = {}, 0
function init(args)
  wrk.method = "POST"
  wrk.headers["Content-Type"] = args[1]
  for i = 2, #args do
    local file = assert(io.open(args[i], "rb"))
    requests[#requests + 1] = wrk.format(nil, nil, nil, file:read("*a"))
    file:close()
  end
end
function request()
  turn = turn % #requests + 1
  return requests[turn]
end
function done(summary, latency, _)
  local e = summary.errors
  local form = '\\n{"requests": %d, "duration": %d, "p50": %d, "p90": %d, "p99": %d, "max": %d, "refused": %d, "broken": %d}\\n'
  local p = function(part) return latency:percentile(part) end
  io.write(string.format(form, summary.requests, summary.duration, p(50), p(90), p(99), latency.max,
    e.status, e.connect + e.read + e.write + e.timeout))
end
"""


class LoadError(RuntimeError):
    """The load generator failed."""


@dataclass(frozen=True, slots=True)
class Load:
    """Answers a second and latencies; `core_ms` is the service's processor time a request, 0 where it is not known."""

    connections: int
    requests: int
    requests_s: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    bad: int
    core_ms: float
    rss_mib: float
    pss_mib: float

    def as_dict(self) -> dict[str, float]:
        """Rounded for JSON."""
        return {name: round(value, 3) for name, value in asdict(self).items()}


def form(data: bytes, part: str) -> tuple[str, bytes]:
    """(content type, body) of a form with one file, as curl -F sends it."""
    boundary = "sknet-benchmark-7f3a91c4d2"
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{part}"; filename="photo.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    )
    return f"multipart/form-data; boundary={boundary}", head.encode() + data + f"\r\n--{boundary}--\r\n".encode()


def wrk_path() -> str | None:
    """Where wrk is, if it is installed (Debian: `apt install wrk`)."""
    return shutil.which("wrk")


def put_load(
    service: Service, path: str, content_type: str, bodies: Sequence[bytes], *, connections: int, seconds: float, wrk: str | None
) -> Load:
    """Keep `connections` connections asking for `seconds`.

    Raises:
        LoadError: the generator failed, or no request was answered well.
        ServiceError: the service has ended.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for i, body in enumerate(bodies):
            files.append(str(Path(folder) / f"{i:03}"))
            Path(files[-1]).write_bytes(body)
        before = service.usage()
        command = _by_wrk if wrk else _by_client
        text = _run(command(service.url, path, content_type, files, connections, seconds, Path(folder), wrk or ""), seconds)
        after = service.usage()
    service.check()
    figures = json.loads(text.strip().splitlines()[-1])
    found = _of_wrk(figures) if wrk else _of_client(figures)
    if not found["requests"]:
        raise LoadError(f"no good answer on {connections} connections, {found['bad']:.0f} bad ones:\n{service.tail()}")
    count = int(found["requests"])
    return Load(
        connections=connections,
        requests=count,
        requests_s=count / found["wall_s"],
        **{name: found[name] for name in ("p50_ms", "p90_ms", "p99_ms", "max_ms")},
        bad=int(found["bad"]),
        core_ms=(after.cpu_s - before.cpu_s) / count * 1e3,
        rss_mib=after.rss_bytes / 2**20,
        pss_mib=after.pss_bytes / 2**20,
    )


def _by_wrk(
    url: str, path: str, content_type: str, files: list[str], connections: int, seconds: float, folder: Path, wrk: str
) -> list[str]:
    script = folder / "post.lua"
    script.write_text(LUA)
    # One thread feeds any number of connections, and takes the least from a service on the same machine. A whole second at least.
    options = ["-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "60s", "-s", str(script)]
    return [wrk, *options, url + path, "--", content_type, *files]


def _by_client(
    url: str, path: str, content_type: str, files: list[str], connections: int, seconds: float, _folder: Path, _wrk: str
) -> list[str]:
    where = urlsplit(url)
    address = [str(where.hostname), str(where.port)]
    return [sys.executable, "-P", "-m", "app.bench.client", *address, path, content_type, str(connections), str(seconds), *files]


def _run(command: list[str], seconds: float) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 120, check=False)  # noqa: S603 - ours
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LoadError(f"{command[0]} failed: {error}") from None
    if done.returncode:
        raise LoadError(f"{command[0]} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def _of_wrk(figures: dict[str, float]) -> dict[str, float]:
    times = {f"{name}_ms": figures[name] / 1e3 for name in ("p50", "p90", "p99", "max")}
    # wrk counts an answer of another status among the requests, and a connection that broke not at all.
    good, bad = figures["requests"] - figures["refused"], figures["refused"] + figures["broken"]
    return {"requests": good, "wall_s": figures["duration"] / 1e6, "bad": bad, **times}


def _of_client(figures: dict[str, list[float] | float]) -> dict[str, float]:
    seconds = figures["seconds"]
    assert isinstance(seconds, list)
    wall, bad = float(str(figures["wall_s"])), float(str(figures["bad"]))
    if len(seconds) < 2:
        return {
            "requests": len(seconds),
            "wall_s": wall,
            "bad": bad,
            **dict.fromkeys(("p50_ms", "p90_ms", "p99_ms", "max_ms"), 0.0),
        }
    cuts = [value * 1e3 for value in statistics.quantiles(seconds, n=100, method="inclusive")]
    times = {"p50_ms": cuts[49], "p90_ms": cuts[89], "p99_ms": cuts[98], "max_ms": max(seconds) * 1e3}
    return {"requests": len(seconds), "wall_s": wall, "bad": bad, **times}

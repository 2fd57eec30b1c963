"""Proxies from Debian before several instances of the service: a configuration in a folder, a process in the foreground.

haproxy asks each instance for its readiness and stops sending where that is gone. nginx cannot: it learns from the requests
themselves, and gives one that found nobody to the next instance. Neither retries what was answered.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from app.bench.process import free_port

START_S = 10

# A body is buffered before it is sent on, which is nginx's default: so it can be sent again. Classifying twice does no harm,
# hence `non_idempotent`. No instance is given up (`max_fails=0`): of two, one is restarted, and the other would be taken away by
# an old connection that it closed meanwhile; to find nobody takes no time here. Idle connections are given up before the service
# closes them, which it does after five seconds.
NGINX = """
daemon off; {user} pid {folder}/nginx.pid; error_log stderr warn; worker_processes 1;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_max_body_size 25m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream service {{
    {servers}
    keepalive 32; keepalive_timeout 4s;
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://service; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_connect_timeout 1s; proxy_read_timeout 30s;
      proxy_next_upstream error timeout http_503 non_idempotent; proxy_next_upstream_tries 2;
    }}
  }}
}}
"""

# Two checks in a row, half a second apart, and patience with each: on a busy machine a late answer is no reason to give up an
# instance while the other one is restarted. An instance that ends is noticed within a second, and its grace must be longer.
HAPROXY = """
global
  maxconn 1000
defaults
  mode http
  timeout connect 1s
  timeout client 30s
  timeout server 30s
  timeout check 5s
  retries 3
  option redispatch 1
frontend clients
  bind 127.0.0.1:{port}
  default_backend service
backend service
  option httpchk GET /readyz
  http-check expect status 200
  default-server check inter 500ms fall 2 rise 1
  {servers}
"""


class ProxyError(RuntimeError):
    """A proxy is not installed, or did not start."""


def nginx(folder: Path, port: int, backends: Sequence[int]) -> list[str]:
    """Its command, with the configuration written."""
    servers = "\n    ".join(f"server 127.0.0.1:{backend} max_fails=0;" for backend in backends)
    user = "user root;" if Path.home() == Path("/root") else ""  # its workers must be able to write into the folder
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port, servers=servers, user=user))
    return [_program("nginx"), "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]


def haproxy(folder: Path, port: int, backends: Sequence[int]) -> list[str]:
    """Its command, with the configuration written."""
    servers = "\n  ".join(f"server s{backend} 127.0.0.1:{backend}" for backend in backends)
    (folder / "haproxy.cfg").write_text(HAPROXY.format(port=port, servers=servers))
    return [_program("haproxy"), "-db", "-f", str(folder / "haproxy.cfg")]


PROXIES = {"nginx": nginx, "haproxy": haproxy}


@contextmanager
def proxy(kind: str, folder: Path, backends: Sequence[int]) -> Iterator[int]:
    """Run a proxy of this kind before these ports of loopback; the port that it listens on.

    Raises:
        ProxyError: it is not installed, or ended.
    """
    port = free_port()
    with (folder / f"{kind}.log").open("wb") as log:
        process = subprocess.Popen(PROXIES[kind](folder, port, backends), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _wait(process, port, folder / f"{kind}.log")
        yield port
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        raise ProxyError(f"{name} is not installed (Debian: apt install {name})")
    return found


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                raise ProxyError(f"{log.stem} does not listen:\n{log.read_text(errors='replace')[-2000:]}") from None
            time.sleep(0.05)

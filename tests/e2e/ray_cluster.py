"""A Ray cluster of two nodes on loopback that serves `deploy/ray/serve.yaml`.

It is a program, since Ray leaves much behind in a process, and `running` starts and ends it. It takes orders as lines of JSON,
`[name, argument...]`, and answers each with a line of JSON on the stream that was its output.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.bench.process import free_port

# Nobody is told of these runs; under the second name Ray lets its daemons listen on loopback alone.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "DO_NOT_TRACK": "1"}
MARK = "CLUSTER_OF_A_TEST"  # in the environment of every process of a cluster, so that each can be found and ended
STOP_S = 30
CONFIG = Path(__file__).resolve().parents[2] / "deploy" / "ray" / "serve.yaml"
# Without what nobody asks here: processes that watch logs, and that would start machines.
NODE: dict[str, Any] = {
    "node_ip_address": "127.0.0.1", "include_dashboard": False, "include_log_monitor": False, "no_monitor": True,
    "object_store_memory": 80_000_000,
}  # fmt: skip
ROOM = 2  # replicas a node: three need both


class Cluster:
    """The cluster, with one method an order."""

    def __init__(self, folder: str, port: int) -> None:
        import ray
        import yaml
        from ray.cluster_utils import Cluster as Nodes
        from ray.serve._private import api
        from ray.serve.schema import ServeDeploySchema

        self._nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": ROOM, "temp_dir": folder, **NODE})
        self._second = self._nodes.add_node(num_cpus=ROOM, **NODE)
        ray.init(address=self._nodes.address, _node_ip_address="127.0.0.1", log_to_driver=False)
        self._config = yaml.safe_load(CONFIG.read_text())
        self._config["http_options"] |= {"host": "127.0.0.1", "port": port}
        self._config["proxy_location"] = "HeadOnly"  # the nodes have one address, so there is one port
        self._schema = ServeDeploySchema
        schema = ServeDeploySchema.model_validate(self._config)
        self._client = api.serve_start(  # as `serve run CONFIG` does
            http_options=schema.http_options.model_dump(),
            proxy_location=schema.proxy_location,
            global_logging_config=schema.logging_config,
            controller_options=schema.controller_options,
        )

    def deploy(self, variables: dict[str, str], scaling: dict[str, float], user_config: dict[str, Any], cpus: float = 1) -> None:
        """Have the configuration with these changes deployed; returns before it is."""
        (application,) = self._config["applications"]
        application["runtime_env"]["env_vars"] |= variables
        application["args"]["cpus"] = cpus
        (deployment,) = application["deployments"]
        deployment["autoscaling_config"] |= scaling
        deployment["user_config"] = user_config
        self._client.deploy_apps(self._schema.model_validate(self._config), _blocking=False)

    def state(self) -> dict[str, Any]:
        """Of the deployment and of the process of each replica that runs."""
        application = self._client.get_serve_details()["applications"].get("sknet", {})
        deployment = application.get("deployments", {}).get("sknet", {})
        replicas = deployment.get("replicas", [])
        second = self._second.node_id
        return {
            "application": application.get("status"),
            "message": application.get("message"),
            "target": deployment.get("target_num_replicas"),
            "running": [(each["pid"], each["node_id"] == second) for each in replicas if each["state"] == "RUNNING"],
        }

    def kill(self, pid: int) -> None:
        """End one process of the cluster at once."""
        os.kill(pid, signal.SIGKILL)

    def remove_node(self) -> None:
        """Take the second node away, with all that runs there."""
        self._nodes.remove_node(self._second, allow_graceful=False)

    def add_node(self) -> None:
        """Have a second node again."""
        self._second = self._nodes.add_node(num_cpus=ROOM, **NODE)

    def stop(self) -> None:
        """Take everything down."""
        import ray
        from ray import serve

        serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()
        self._nodes.shutdown()  # type: ignore[no-untyped-call]


@dataclass
class Orders:
    """Gives the program its orders."""

    process: subprocess.Popen[str]
    url: str
    log: Path
    mark: str

    def pids(self) -> list[int]:
        """Every process of the cluster."""
        found, wanted = [], f"{MARK}={self.mark}".encode()
        for folder in Path("/proc").iterdir():
            with suppress(OSError):  # it ended meanwhile, or is somebody else's
                if folder.name.isdigit() and wanted in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
        return found

    def __call__(self, name: str, *arguments: object) -> Any:
        """What the method of `Cluster` returns."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([name, *arguments]) + "\n")
        self.process.stdin.flush()
        return self.heard()

    def heard(self) -> Any:
        """The next answer."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the cluster ended:\n{self.log.read_text(errors='replace')[-3000:]}")
        return json.loads(line)

    def until(self, condition: Callable[[dict[str, Any]], bool], limit_s: float) -> dict[str, Any]:
        """Ask for the state until it is so."""
        end = time.monotonic() + limit_s
        state: dict[str, Any]
        while not condition(state := self("state")):
            if time.monotonic() > end:
                raise AssertionError(f"not within {limit_s} s: {state}\n{self.log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.1)
        return state


@contextmanager
def running(variables: Mapping[str, str], log: Path) -> Iterator[Orders]:
    """The program; at the end nothing of it is left, whatever happened between."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SKNET_", "RAY_"))}
    mark, port = uuid.uuid4().hex, free_port()
    folder = tempfile.mkdtemp(prefix="ray-")  # a short path: that of a socket below has 107 characters at most
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.ray_cluster", folder, str(port)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out, text=True, start_new_session=True,
            env={**kept, **QUIET, **variables, MARK: mark},
        )  # fmt: skip
    orders = Orders(process, f"http://127.0.0.1:{port}", log, mark)
    try:
        assert orders.heard() == "ready"
        yield orders
        orders("stop")
        process.wait(STOP_S)
    finally:
        for pid in orders.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Ray prints goes to the log
    cluster = Cluster(sys.argv[1], int(sys.argv[2]))
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(json.dumps(getattr(cluster, name)(*arguments), default=str), file=answers, flush=True)
        if name == "stop":
            return


if __name__ == "__main__":
    main()

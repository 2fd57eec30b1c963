"""The same network behind other servers, in one run with ours: `python -m benchmarks.peers`."""

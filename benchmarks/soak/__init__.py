"""Long trials of the running service: generated requests, half an hour of mixed load, restarts behind a proxy."""

"""Long trials of the service: hostile files, mixed load, restarts; each fails where the service does."""

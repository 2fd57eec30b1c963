"""Messages of what comes over gRPC, generated: `python -m tests.repo.stubs` makes them anew. Nothing here is ours."""

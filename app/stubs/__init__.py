"""Messages of the protocols that come over gRPC, generated: `python -m tests.repo.stubs` makes them anew. Nothing here is ours."""

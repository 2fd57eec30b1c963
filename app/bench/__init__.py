"""Measuring a service on one's own machine: `sknet bench`. Talks to the façade and over HTTP, as any caller does."""

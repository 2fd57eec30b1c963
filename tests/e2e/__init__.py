"""A real server process, real sockets, real signals."""

"""Speed, measured by one command and never by a test: `make bench`."""

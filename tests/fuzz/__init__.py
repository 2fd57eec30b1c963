"""Coverage-guided fuzzing: one file a target, each with the seeds it starts from and a check that no input may fail.

The targets need no fuzzer: `tests/fuzz/test_targets.py` runs each over its seeds. `python -m tests.fuzz TARGET` gives them to
atheris.
"""

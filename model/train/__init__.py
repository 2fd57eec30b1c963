"""The recipe that made `bundled:cifar10`. Nothing imports this package; `python -m model.train` runs it."""

"""Wire shapes only, one file per dialect."""

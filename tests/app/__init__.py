"""Tests of `app/`, against a fake model."""

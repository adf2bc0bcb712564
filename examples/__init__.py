"""Workflows to try, and `python -m examples.demo`, which runs them all on an installation of its own."""

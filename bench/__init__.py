"""Measurements, each run as `python -m bench.<name>`; the figures that count are ratios taken within one run."""

"""Benchmarks of privet against named peers, in one run: ``./run bench [NAME...] [--json FILE]``."""

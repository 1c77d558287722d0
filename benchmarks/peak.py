"""Prints the extra peak memory of the first calls: ``python -m benchmarks.peak NAME WORK METHOD THREADS``."""

from __future__ import annotations

import json
import sys

import torch

from benchmarks.harness import find, peak_mb_of_calls

if __name__ == "__main__":
    name, work, method, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    print(json.dumps(peak_mb_of_calls(find(name, work), method)))

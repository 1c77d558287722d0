"""``./run bench [NAME...] [--json FILE] [--list]``: runs benchmarks, all of them if none is named."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.harness import Row, all_benchmarks, load, measure


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmarks that are named and returns the exit code."""
    parser = argparse.ArgumentParser(prog="./run bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a benchmark; all of them if none is named")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file, too")
    parser.add_argument("--list", action="store_true", help="list the benchmarks and stop")
    given = parser.parse_args(arguments)
    known = all_benchmarks()
    console = Console()
    if given.list:
        for name, module in known.items():
            console.print(f"{name}: {(load(name).__doc__ or module).splitlines()[0]}", highlight=False)
        return 0
    unknown = [name for name in given.names if name not in known]
    if unknown:
        print(f"There is no benchmark {', '.join(map(repr, unknown))}; there are: {', '.join(known)}.", file=sys.stderr)
        return 2
    if given.json is not None and not given.json.resolve().parent.is_dir():
        print(f"--json {given.json}: there is no folder {given.json.resolve().parent}.", file=sys.stderr)
        return 2
    rows: list[Row] = []
    console.print(_machine(), highlight=False)
    for name in dict.fromkeys(given.names or known):
        for work in load(name).works():
            new = measure(name, work)
            console.print(_table(new, work.baseline))
            for method, why in work.missing.items():
                console.print(f"  not measured: {method} ({why})", highlight=False, markup=False)
            rows += new
            if given.json is not None:
                _write(given.json, rows)
    return 0


def _table(rows: list[Row], baseline: str) -> Table:
    table = Table(title=f"{rows[0].name} / {rows[0].work}", title_justify="left")
    for column in ("method", "median ms", "extra peak MB", f"ratio to {baseline}"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for row in rows:
        table.add_row(row.method, f"{row.seconds * 1e3:,.3f}", f"{row.peak_mb:,.1f}", f"{row.ratio:.4g}")
    return table


def _write(path: Path, rows: list[Row]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps([row.as_dict() for row in rows], indent=1) + "\n")
    temporary.replace(path)


def _machine() -> str:
    return (
        f"Python {platform.python_version()}, PyTorch {torch.__version__}, {platform.machine()}, "
        f"{torch.get_num_threads()} threads"
    )


if __name__ == "__main__":
    sys.exit(main())

"""Measure asyncflow and the floor (``mini.py``), and print one JSON line a figure.

Figures are CPU time of the process per task in microseconds, and wall time where it is the point. Both take
turns in one process, since the machine's speed swings within minutes: the ratio, the median of the turns, is
the figure to quote.
"""

from __future__ import annotations

import argparse
import json

from .measure import Scale
from .suite import ALL


def main() -> None:
    known = {measure.__name__: measure for measure in ALL}
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure: {', '.join(known)}")
    parser.add_argument("--at-most", type=int, metavar="N", help="tasks a workload, once: to see that it works")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.names if name not in known]
    if unknown:
        parser.error(f"no measurement called {unknown[0]!r}; there are: {', '.join(known)}")
    for name in chosen.names or known:
        for row in known[name](Scale(chosen.at_most)):
            print(json.dumps(row.to_json()), flush=True)


if __name__ == "__main__":
    main()

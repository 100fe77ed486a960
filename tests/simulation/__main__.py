"""``python -m tests.simulation --seed 123 --schedules 1000``: any seeds; a failure tells how to replay it."""

from __future__ import annotations

import argparse
import sys
import time
import traceback

from tests.simulation.schedule import run, run_many


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first seed (default: %(default)s)")
    parser.add_argument("--schedules", type=int, default=1000, help="how many seeds from there (default: %(default)s)")
    parser.add_argument("--trace", action="store_true", help="print the story of each schedule")
    arguments = parser.parse_args()
    began = time.perf_counter()
    try:
        if arguments.trace:
            for seed in range(arguments.seed, arguments.seed + arguments.schedules):
                sys.stdout.write(run(seed).trace() + "\n")
        else:
            run_many(arguments.seed, arguments.schedules)
    except Exception:  # noqa: BLE001 - whatever it is, the seed and the story are in its notes
        traceback.print_exc(file=sys.stdout)
        return 1
    took = time.perf_counter() - began
    last = arguments.seed + arguments.schedules - 1
    sys.stdout.write(f"seeds {arguments.seed} to {last}: {arguments.schedules} schedules, {took:.1f} s, all well\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

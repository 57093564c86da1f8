"""All faults, as often as it takes to believe the store: `python tests/faults/deep.py`.

Prints a table of figures. What could not be done here is counted as SKIPPED, and never as a pass.
`--short` is the form that belongs to every test run; `--scale 0.1` does a tenth of the deep one.
"""

from __future__ import annotations

import argparse
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE), os.path.dirname(os.path.dirname(HERE))]

from faults import (  # noqa: E402  (the path has to be there first)
    errors,
    flips,
    full,
    fuzz,
    histories,
    hostile,
    kill_cli,
    lostwrites,
    model,
    mutants,
    power,
    sweep,
    two_hosts,
)

FORMS = {
    "kills": (sweep.run, 800, 10_000),
    "collections": (sweep.interleaved, 90, 900),
    "errors": (errors.run, 150, 1_500),
    "command-errors": (errors.commands, 50, 500),
    "lost-writes": (lostwrites.run, 100, 1_000),
    "power": (power.run, 8, 400),
    "model": (model.run, 0, 10_000),
    "flips": (flips.run, 300, 10_000),
    "edits": (flips.placed, 10, 100),
    "command-kills": (kill_cli.run, 20, 300),
    "full-disks": (full.run, 12, 200),
    "two-hosts": (two_hosts.run, 5, 50),
    "crowd": (lambda steps: two_hosts.crowd(4, steps), 20, 0),
    "large-crowd": (lambda steps: two_hosts.crowd(16, steps), 0, 200),
    "hostile": (hostile.run, 120, 349),
    "fuzz": (fuzz.run, 2_000, 1_000_000),
    "histories": (histories.run, 25, 1_000),
    "history-mutants": (histories.planted, 2, 7),
    "mutants": (lambda _all: mutants.run(), 1, 1),
}


def main() -> int:
    """Run the forms that are named, all of them by default; 1 where one has a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("forms", nargs="*", metavar="FORM", help=", ".join(FORMS))
    parser.add_argument("--short", action="store_true", help="as often as every test run does")
    parser.add_argument("--scale", type=float, default=1.0, help="part of the deep form")
    given = parser.parse_args()
    failed = False
    for name in given.forms or FORMS:
        form, short, deep = FORMS[name]
        count = short if given.short else -(-int(deep * given.scale * 1000) // 1000)
        if not count:
            continue
        tally = form(count)
        lines = [tally.line(), *(f"     {fault}" for fault in tally.faults[:10])]
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
        failed = failed or bool(tally.faults)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

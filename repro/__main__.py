"""`python -m repro`, and the console script."""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    """Run the command line and exit with its status.

    A hit is over in milliseconds: collecting garbage and taking the interpreter apart would be a
    tenth of it, so neither is done where nothing but this thread ever ran.
    """
    gc.disable()
    # Where it is installed jsonschema imports this grammar of IRIs at once, which takes a second.
    # No schema of ours needs it.
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    from repro.cli import main as run

    status = run(sys.argv[1:])
    if "threading" in sys.modules:
        sys.exit(status)
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            pass  # the reader has gone
    os._exit(status)


if __name__ == "__main__":
    main()

"""A program that runs one job in Docker: `container_host.py USER`, the job as JSON on stdin.

It becomes that user first, keeping its groups. Prints the output, then `ended` with exit code.
"""

import json
import os
import sys
import urllib.parse  # noqa: F401  (a user without rights may not read it any more)

from repro.backends import loopback  # noqa: F401  (the same)
from repro.backends.docker import Docker
from repro.ports import Job


def main(user):
    asked = json.load(sys.stdin)
    if user:
        os.setgid(user)
        os.setuid(user)
    job = Job(**{**asked, "argv": tuple(asked["argv"])})
    end = Docker().submit(job, lambda _, data: os.write(1, data)).wait()
    os.write(1, b"ended %d %b\n" % (end.code, end.cause.encode()))


if __name__ == "__main__":
    main(int(sys.argv[1]))

"""A program that sees an image and runs one job in it: `container_loads.py NAME@DIGEST`.

The job comes as JSON on stdin, with the image's id. Prints the output, then `ended` with the exit
code, and then what was loaded that takes longer than the rest together.
"""

import json
import os
import sys

from repro import platforms
from repro.environments.docker import Docker as Images
from repro.images import engine
from repro.lock import EnvironmentLock, Image
from repro.ports import Job

HEAVY = ("docker", "requests", "urllib3", "ssl", "http", "email", "yaml", "tarfile", "subprocess")


def main(pin):
    asked = json.load(sys.stdin)
    found = engine.connect(os.environ).image(asked["image"])
    name, _, manifest = pin.partition("@")
    image = Image(
        reference=name, id=found["Id"], layers=tuple(found["RootFS"]["Layers"]), manifest=manifest
    )
    here = platforms.of_machine(sys.platform, os.uname().machine)
    lock = EnvironmentLock(kind="docker", platform=here, image=image)
    asked["image"] = Images("/nowhere", os.environ).realize(lock, print).image
    from repro.backends.docker import Docker

    job = Job(**{**asked, "argv": tuple(asked["argv"])})
    end = Docker().submit(job, lambda _, data: os.write(1, data)).wait()
    os.write(1, b"ended %d\n" % end.code)
    for loaded in sorted(set(sys.modules).intersection(HEAVY)):
        os.write(1, f"loaded {loaded}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1])

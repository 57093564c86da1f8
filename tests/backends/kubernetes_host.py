"""A program that submits a job to a cluster and may be killed: what, as JSON on stdin."""

import json
import os
import sys

from repro.backends.kubernetes import Kubernetes
from repro.ports import Job


def main():
    asked = json.loads(sys.stdin.readline())
    base = asked["base"]
    job = Job(
        run_id=asked["run"],
        argv=("sh", "-c", asked["text"]),
        variables={},
        folder=os.path.join(base, "work"),
        base=base,
        image=asked["image"],
    )
    backend = Kubernetes(asked["config"], store="/none", environ=asked["environ"])
    backend.submit(job, lambda _, data: os.write(1, data)).wait()


if __name__ == "__main__":
    main()

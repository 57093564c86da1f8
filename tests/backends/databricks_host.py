"""A program that submits a job to Databricks and may be killed: what, as JSON on stdin."""

import json
import os
import sys

from repro.backends.databricks import Databricks
from repro.ports import Job


def main():
    asked = json.loads(sys.stdin.readline())
    job = Job(
        run_id=asked["run"],
        argv=("sh", "-c", asked["text"]),
        variables={"PATH": os.environ["PATH"]},
        folder=os.path.join(asked["base"], "work"),
        base=asked["base"],
    )
    backend = Databricks(asked["config"], store=asked["store"])
    backend.submit(job, lambda _, data: os.write(1, data)).wait()


if __name__ == "__main__":
    main()

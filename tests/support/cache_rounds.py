"""One of several machines that make, send, fetch and check the same results at the same time."""

from __future__ import annotations

import os
import pathlib
import random
import sys
import time

from support.cache_hosts import Host

ROUNDS = 20


def files_of(number):
    dice = random.Random(number)
    return {f"out{i}": dice.randbytes(dice.choice([0, 10, 5000, 1_100_000])) for i in range(3)}


def main(folder, url, seed):
    host = Host(pathlib.Path(folder), {k: v for k, v in os.environ.items() if k.startswith("AWS_")})
    dice = random.Random(seed)
    made = fetched = wrong = 0
    for number in range(ROUNDS):
        time.sleep(dice.random() * 0.1)
        sharing = host.share(url)
        key = host.make(f"round {number}", files_of(number))
        host.machine.results.drop(key)
        if sharing.fetch_result(key) is None:
            made += 1
            host.make(f"round {number}", files_of(number))
            sharing.offer(key)
        else:
            fetched += 1
        wrong += host.read(key) != files_of(number)
        if dice.random() < 0.2:
            sharing.push()
        sharing.close()
    sys.stdout.write(" ".join(map(str, (made, fetched, wrong, len(host.warnings), *host.warnings))))
    host.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

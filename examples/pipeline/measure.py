"""Measure a curve: y = 3 - 2x + x^2, with noise."""

import argparse
import csv
import pathlib
import random

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, required=True)
parser.add_argument("--points", type=int, required=True)
given = parser.parse_args()

dice = random.Random(given.seed)
target = pathlib.Path("build/measured.csv")
target.parent.mkdir(exist_ok=True)
with target.open("w", newline="") as file:
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(["x", "y"])
    for index in range(given.points):
        x = -1 + 4 * index / (given.points - 1)
        rows.writerow([f"{x:.6f}", f"{3 - 2 * x + x * x + dice.gauss(0, 0.3):.6f}"])
print(f"{given.points} points")

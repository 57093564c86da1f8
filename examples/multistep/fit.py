"""Fit a polynomial by least squares, and write how far it is from the data."""

import csv
import json
import sys

with open(sys.argv[1], newline="") as file:
    points = [(float(row["x"]), float(row["y"])) for row in csv.DictReader(file)]
size = int(sys.argv[2]) + 1

table = [
    [sum(x ** (i + j) for x, _ in points) for j in range(size)] + [sum(y * x**i for x, y in points)]
    for i in range(size)
]
for i in range(size):
    table[i] = [value / table[i][i] for value in table[i]]
    for j in range(size):
        if j != i:
            table[j] = [a - table[j][i] * b for a, b in zip(table[j], table[i])]
factors = [row[-1] for row in table]

squares = [(y - sum(f * x**k for k, f in enumerate(factors))) ** 2 for x, y in points]
with open("fit.json", "w") as file:
    json.dump({"error": (sum(squares) / len(squares)) ** 0.5}, file)

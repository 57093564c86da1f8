"""Fit a polynomial by least squares, with the standard library alone."""

import argparse
import csv
import json

parser = argparse.ArgumentParser()
parser.add_argument("--degree", type=int, required=True)
degree = parser.parse_args().degree

with open("build/measured.csv", newline="") as file:
    points = [(float(row["x"]), float(row["y"])) for row in csv.DictReader(file)]

size = degree + 1
matrix = [
    [sum(x ** (i + j) for x, _ in points) for j in range(size)]
    + [sum(y * x**i for x, y in points)]
    for i in range(size)
]
for i in range(size):
    pivot = max(range(i, size), key=lambda row: abs(matrix[row][i]))
    matrix[i], matrix[pivot] = matrix[pivot], matrix[i]
    matrix[i] = [value / matrix[i][i] for value in matrix[i]]
    for row in range(size):
        if row != i:
            factor = matrix[row][i]
            matrix[row] = [a - factor * b for a, b in zip(matrix[row], matrix[i])]
weights = [row[-1] for row in matrix]

error = sum((y - sum(w * x**k for k, w in enumerate(weights))) ** 2 for x, y in points)
model = {"rmse": round((error / len(points)) ** 0.5, 6), "weights": [round(w, 6) for w in weights]}
with open("build/model.json", "w") as file:
    json.dump(model, file, indent=1)
print(f"degree {degree}: rmse {model['rmse']}")

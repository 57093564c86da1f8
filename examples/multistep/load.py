"""Write a noisy parabola."""

import csv
import random
import sys

noise = random.Random(7)
with open("measured.csv", "w", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(["x", "y"])
    count = int(sys.argv[1])
    for number in range(count):
        x = 2 * number / count - 1
        rows.writerow([x, 1 - 2 * x + 3 * x * x + noise.gauss(0, 0.1)])

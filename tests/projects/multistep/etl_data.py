"""Takes the first rows of the ratings."""

import argparse
import csv
import os
import tempfile

import mlflow

parser = argparse.ArgumentParser()
parser.add_argument("--ratings-csv")
parser.add_argument("--max-row-limit", type=int)
given = parser.parse_args()

with open(os.path.join(given.ratings_csv, "ratings.csv"), newline="") as file:
    rows = list(csv.reader(file))[: given.max_row_limit + 1]
with mlflow.start_run(), tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "clean.csv")
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(rows)
    mlflow.log_artifact(path)
    mlflow.log_param("rows", len(rows) - 1)
    mlflow.set_tag("stage", "clean")

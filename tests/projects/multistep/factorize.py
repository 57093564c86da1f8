"""Learns the mean rating of each item, as a stand-in for factors."""

import argparse
import csv
import json

import mlflow

parser = argparse.ArgumentParser()
parser.add_argument("--ratings-data")
parser.add_argument("--rank", type=int)
given = parser.parse_args()

with open(given.ratings_data.removeprefix("file://"), newline="") as file:
    rows = list(csv.DictReader(file))
items = {}
for row in rows:
    items.setdefault(row["item"], []).append(float(row["rating"]))
means = {item: round(sum(found) / len(found), given.rank) for item, found in sorted(items.items())}
with mlflow.start_run():
    mlflow.log_text(json.dumps(means), "model/means.json")

"""Runs the steps one after the other, each with the artifacts of those before it."""

import argparse
import os

import mlflow
from mlflow.tracking import MlflowClient


def step(entry_point, parameters):
    submitted = mlflow.run(".", entry_point, parameters=parameters)
    assert submitted.wait()
    assert submitted.get_status() == "FINISHED"
    return MlflowClient().get_run(submitted.run_id)


def workflow(rank, rows):
    with mlflow.start_run():
        loaded = step("load_raw_data", {})
        ratings = os.path.join(loaded.info.artifact_uri, "ratings-csv-dir")
        cleaned = step("etl_data", {"ratings_csv": ratings, "max_row_limit": rows})
        print("rows kept:", cleaned.data.params["rows"], cleaned.data.tags["stage"])
        data = os.path.join(cleaned.info.artifact_uri, "clean.csv")
        factors = step("factorize", {"ratings_data": data, "rank": str(rank)})
        model = os.path.join(factors.info.artifact_uri, "model")
        trained = step("train", {"ratings_data": data, "model_uri": model})
        folder = mlflow.artifacts.download_artifacts(run_id=trained.info.run_id)
        print("files:", sorted(os.listdir(folder)))
        mlflow.log_metric("error", trained.data.metrics["error"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rank", type=int)
    parser.add_argument("--rows", type=int)
    workflow(**vars(parser.parse_args()))

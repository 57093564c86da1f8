"""Fit an elastic net to the diabetes data that scikit-learn ships, and log it with MLflow."""

import argparse

import mlflow
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.linear_model import ElasticNet
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.model_selection import train_test_split


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--alpha", type=float, required=True)
    parser.add_argument("--l1-ratio", type=float, required=True)
    arguments = parser.parse_args()

    features, target = load_diabetes(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(features, target, random_state=0)
    model = ElasticNet(alpha=arguments.alpha, l1_ratio=arguments.l1_ratio, random_state=42)
    model.fit(x_train, y_train)
    predicted = model.predict(x_test)

    with mlflow.start_run():
        mlflow.log_param("rows", len(x_train))
        mlflow.log_metric("rmse", root_mean_squared_error(y_test, predicted))
        mlflow.log_metric("mae", mean_absolute_error(y_test, predicted))
        mlflow.log_metric("r2", r2_score(y_test, predicted))

    np.savetxt("predictions.csv", np.column_stack([y_test, predicted]), "%.6f", ",")
    print(f"elastic net (alpha={arguments.alpha}, l1_ratio={arguments.l1_ratio})")
    print(f"  r2 {r2_score(y_test, predicted):.4f} on {len(y_test)} rows")


if __name__ == "__main__":
    main()

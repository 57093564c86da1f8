"""Predict the quality of wine with an elastic net; everything is logged with plain MLflow."""

import sys

import mlflow
import mlflow.sklearn
import numpy as np
import pandas as pd
from sklearn.linear_model import ElasticNet
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score
from sklearn.model_selection import train_test_split

np.random.seed(40)

data = pd.read_csv(sys.argv[1])
alpha, l1_ratio = float(sys.argv[2]), float(sys.argv[3])
train, test = train_test_split(data)
columns = [name for name in data.columns if name != "quality"]

with mlflow.start_run():
    model = ElasticNet(alpha=alpha, l1_ratio=l1_ratio, random_state=42)
    model.fit(train[columns], train["quality"])
    predicted = model.predict(test[columns])
    rmse = float(np.sqrt(mean_squared_error(test["quality"], predicted)))
    mae = mean_absolute_error(test["quality"], predicted)
    r2 = r2_score(test["quality"], predicted)

    print(f"Elasticnet model (alpha={alpha:f}, l1_ratio={l1_ratio:f}):")
    print(f"  RMSE: {rmse}")
    print(f"  MAE: {mae}")
    print(f"  R2: {r2}")

    mlflow.log_param("rows", len(train))
    mlflow.log_metric("rmse", rmse)
    mlflow.log_metric("mae", mae)
    mlflow.log_metric("r2", r2)
    mlflow.set_tag("kind", "elastic net")
    mlflow.sklearn.log_model(model, name="model")

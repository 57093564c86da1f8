"""Makes a table of ratings and logs it as an artifact."""

import os
import tempfile

import mlflow

with mlflow.start_run(), tempfile.TemporaryDirectory() as folder:
    with open(os.path.join(folder, "ratings.csv"), "w") as file:
        file.write("user,item,rating\n")
        for user in range(10):
            for item in range(6):
                file.write(f"{user},{item},{(user * 3 + item * 5) % 7 / 2}\n")
    mlflow.log_artifacts(folder, "ratings-csv-dir")

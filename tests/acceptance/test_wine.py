"""The reference example: real data, a real environment, the real MLflow client, and a hit."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from conftest import REPOSITORY, SHARED

DATA = SHARED / "data" / "wine-quality.csv"
RMSE, MAE, R2 = 0.788347345611717, 0.6155576449938276, 0.19729662005412607


@pytest.mark.network
@pytest.mark.skipif(not DATA.exists(), reason=f"the data are not at {DATA}")
def test_the_wine_model_is_trained_once_and_restored(repro, tmp_path, network):
    folder = tmp_path / "wine"
    shutil.copytree(REPOSITORY / "tests/projects/wine", folder)
    shutil.copy(DATA, tmp_path / "wine.csv")
    words = (
        "run",
        folder,
        "-P",
        f"data={tmp_path}/wine.csv",
        "-P",
        "alpha=0.5",
        "-P",
        "l1_ratio=0.01",
    )

    first = repro(*words, timeout=600, env=network)
    assert first.code == 0, first.err
    assert "Elasticnet model (alpha=0.500000, l1_ratio=0.010000):" in first.err
    for name, expected in (("RMSE", RMSE), ("MAE", MAE), ("R2", R2)):
        (printed,) = re.findall(rf"  {name}: (\S+)", first.err)
        assert float(printed) == pytest.approx(expected, abs=1e-9)

    (tmp_path / "wine.csv").rename(tmp_path / "same-content.csv")
    words = [str(w).replace("wine.csv", "same-content.csv") for w in words]
    second = repro(*words, "--json")
    assert second.code == 0
    hit = json.loads(second.out)
    assert (hit["cached"], hit["origin_run"]) == (True, first.out.strip())
    assert hit["metrics"] == {
        "rmse": pytest.approx(RMSE, abs=1e-9),
        "mae": pytest.approx(MAE, abs=1e-9),
        "r2": pytest.approx(R2, abs=1e-9),
    }
    assert hit["logged_parameters"] == {"rows": "3673"}
    assert hit["tags"]["kind"] == "elastic net"
    assert "Elasticnet model" in second.err
    assert f"reused run {first.out[:8]}" in second.err
    assert "miss" not in second.err

    logged = repro("outputs", hit["run_id"], "--logged", "--to", tmp_path / "logged")
    assert logged.code == 0
    assert (tmp_path / "logged/model/MLmodel").exists()
    assert any((tmp_path / "logged/model").glob("model.*"))

"""Jobs of a real Slurm of two nodes on loopback."""

import contextlib

import pytest

pytest.register_assert_rewrite("repro.testing.contract")

from support.slurm_engine import slurm_engine  # noqa: E402, F401  (a fixture)

from repro.backends.slurm import Slurm  # noqa: E402
from repro.testing.contract import BackendContract  # noqa: E402


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return str(tmp_path_factory.mktemp("store"))


class TestContract(BackendContract):
    @pytest.fixture(autouse=True)
    def _engine(self, slurm_engine, store):  # noqa: F811
        self.environ, self.store = slurm_engine.environ, store

    def backend(self):
        return Slurm({"poll": 1}, store=self.store, environ=self.environ)

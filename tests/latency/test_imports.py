import subprocess
import sys

CODE = """
import importlib, pkgutil, sys
import latlas_latency
for module in pkgutil.walk_packages(latlas_latency.__path__, "latlas_latency."):
    if module.name != "latlas_latency.predictors.mlp_training":
        importlib.import_module(module.name)
heavy = {"torch", "sklearn", "scipy", "pandas", "onnx", "onnxruntime", "matplotlib", "sqlalchemy"}
print(*sorted(heavy & set(sys.modules)))
"""


def test_importing_everything_but_the_training_loads_nothing_heavy():
    ended = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout.split() == []


def test_fitting_without_torch_names_the_extra():
    code = """
import sys
sys.modules["torch"] = None
import numpy as np
from latlas_latency.measurement import Target
from latlas_latency.predictors.mlp import fit_mlp
from latlas_ops import get_space
from latlas_ops.errors import MissingDependencyError
batch = get_space("digits").sample(20, np.random.default_rng(0))
try:
    fit_mlp(batch, np.ones(20), Target("t", "m", "r", "1", "p"), seed=0)
except MissingDependencyError as error:
    print(error)
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "needs torch: install latlas[nas]" in ended.stdout

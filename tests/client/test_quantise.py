"""`latlas quantise`: a float model and real inputs become an int8 model."""

import json

import numpy as np
import onnx
import pytest

from latlas.cli import main as cli
from latlas_ops import Network, OpSpec
from latlas_ops.writers.onnx_writer import write_onnx
from latlas_ops.writers.opgraph import write_opgraph

NETWORK = Network.chain([OpSpec.of("conv", (3, 8, 8), out_channels=4, kernel=3)])
INPUTS = np.random.default_rng(0).standard_normal((5, 3, 8, 8), dtype=np.float32)


@pytest.fixture
def quantise(tmp_path):
    """Runs the command in a folder with a model and inputs; returns the exit code."""
    (tmp_path / "net.onnx").write_bytes(write_onnx(NETWORK).model_bytes)
    (tmp_path / "net.opgraph").write_bytes(write_opgraph(NETWORK).model_bytes)
    np.savez(tmp_path / "inputs.npz", images=INPUTS)
    np.save(tmp_path / "inputs.npy", INPUTS)
    np.savez(tmp_path / "labelled.npz", images=INPUTS, labels=np.zeros(5))
    (tmp_path / "text.npz").write_text("no arrays")

    def run(model, calibration, *options):
        return cli.main(
            ["quantise", str(tmp_path / model), "--calibration", str(tmp_path / calibration),
             "--output", str(tmp_path / "int8.onnx"), *options]
        )  # fmt: skip

    return run


@pytest.mark.parametrize("calibration", ["inputs.npz", "inputs.npy"])
def test_a_model_is_quantised(quantise, calibration, tmp_path, capsys):
    assert quantise("net.onnx", calibration, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    model = (tmp_path / "int8.onnx").read_bytes()
    assert (told["int8_bytes"], told["calibration_inputs"]) == (len(model), 5)
    assert "QuantizeLinear" in {n.op_type for n in onnx.load_from_string(model).graph.node}


@pytest.mark.parametrize(
    ("model", "calibration", "reason"),
    [
        ("net.onnx", "labelled.npz", "holds 2 arrays (images, labels), not one"),
        ("net.onnx", "text.npz", "text.npz is no file of numpy arrays"),
        ("net.onnx", "missing.npz", "cannot read"),
        ("net.opgraph", "inputs.npz", "only ONNX and TFLite models can be quantised"),
    ],
)
def test_what_cannot_be_used_is_named(quantise, model, calibration, reason, tmp_path, capsys):
    assert quantise(model, calibration) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "int8.onnx").exists()

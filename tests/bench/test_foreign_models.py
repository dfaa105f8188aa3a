"""Files that are no models, through a real agent: each fails with its reason, the agent goes on."""

import json

import pytest


@pytest.fixture(scope="module")
def foreign(bench_module):
    return bench_module("foreign_models")


@pytest.mark.slow
def test_every_broken_file_fails_with_its_reason(foreign, tmp_path, capsys):
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
    record = tmp_path / "figures.json"
    assert foreign.main(["--quick", "--json", str(record)]) == 0
    shown = {one["name"]: one for one in json.loads(record.read_text())["figures"]}
    assert shown["files that are no models, failed with a reason"]["value"] == 7
    out = capsys.readouterr().out
    assert "weights in another file.onnx: the model keeps weights in another file" in out
    assert "endless.onnx: killed after 4 s" in out


def test_a_folder_of_wheels_without_models_is_named(foreign, tmp_path, capsys):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "empty.whl").write_bytes(b"PK\x05\x06" + bytes(18))
    assert foreign.main([str(tmp_path)]) == 2
    assert "holds no wheel with a model in it" in capsys.readouterr().err

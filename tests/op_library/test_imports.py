import subprocess
import sys

HEAVY = (
    *("onnx", "onnxruntime", "ai_edge_litert", "flatbuffers", "torch", "sklearn", "sqlalchemy"),
    *("grpc", "google.protobuf"),
)


def test_the_library_and_its_writers_load_no_heavy_package() -> None:
    code = (
        "import sys, latlas_ops, latlas_ops.costs, latlas_ops.variation, latlas_ops.weights\n"
        "import latlas_ops.writers.onnx_writer, latlas_ops.writers.tflite_writer\n"
        "import latlas_ops.writers.torch_writer\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == ""

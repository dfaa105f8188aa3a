#!/bin/sh
# Writes the Python code of protos/latlas_protos/v1/*.proto below a folder (default: protos/).
# The generator is pinned to an old release on purpose: its code loads on that protobuf runtime
# and on every newer one, so that boards a few releases behind can still join.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
out=${1:-$here}
tools=${LATLAS_PROTOC_ENV:-$here/../.cache/protoc}
if [ ! -x "$tools/bin/protoc-gen-mypy_grpc" ]; then
  "${PYTHON:-python3}" -m venv "$tools"
  "$tools/bin/pip" install --quiet "grpcio-tools==1.71.2" "mypy-protobuf==3.6.0" "setuptools<81"
fi
cd "$here"
PATH="$tools/bin:$PATH"
export PATH
python -m grpc_tools.protoc -I. --python_out="$out" --mypy_out=quiet:"$out" \
  latlas_protos/v1/measurement.proto latlas_protos/v1/fleet.proto latlas_protos/v1/query.proto
python -m grpc_tools.protoc -I. --grpc_python_out="$out" --mypy_grpc_out=quiet:"$out" \
  latlas_protos/v1/fleet.proto latlas_protos/v1/query.proto

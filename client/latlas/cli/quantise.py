"""`latlas quantise MODEL`: the int8 model of a float32 one, calibrated on real inputs."""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latlas.cli.options import Commands, add_command
from latlas.cli.output import print_json, print_pairs
from latlas.cli.programs import read_program
from latlas.files import read_file, write_atomically
from latlas_ops.errors import InvalidInputError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def add_to(commands: Commands) -> None:
    """Adds `quantise`."""
    command = add_command(
        commands, "quantise", "make the int8 model of a float32 one", coordinator=False
    )
    command.add_argument("model", type=Path, metavar="MODEL", help="an ONNX or TFLite file")
    command.add_argument(
        "--calibration",
        type=Path,
        required=True,
        metavar="FILE",
        help=".npy or .npz with one array (n, *input shape): inputs of the kind that the model "
        "will see, laid out as it takes them; a hundred are plenty",
    )
    command.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="where the int8 model goes"
    )
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Quantises a model on this machine; no coordinator is asked."""
    from latlas_ops.writers.onnx_int8 import quantise_onnx
    from latlas_ops.writers.tflite_int8 import quantise_tflite

    data, program_format = read_program(args.model)
    writers = {"onnx": quantise_onnx, "tflite": quantise_tflite}
    if program_format not in writers:
        raise InvalidInputError(f"{args.model}: only ONNX and TFLite models can be quantised")
    inputs = read_calibration(args.calibration)
    quantised = writers[program_format](data, inputs)
    write_atomically(args.output, quantised)
    told = {
        "model": str(args.model),
        "int8_model": str(args.output),
        "float32_bytes": len(data),
        "int8_bytes": len(quantised),
        "calibration_inputs": len(inputs),
    }
    if args.json:
        print_json(told)
    else:
        print_pairs(told.items())


def read_calibration(path: Path) -> NDArray[Any]:
    """The only array of a `.npy` or `.npz` file.

    Raises:
        InvalidInputError: it cannot be read, holds pickles, or another number of arrays.
    """
    import numpy as np

    try:
        loaded = np.load(io.BytesIO(read_file(path)), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        arrays: dict[str, NDArray[Any]] = {name: loaded[name] for name in loaded.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidInputError(f"{path} is no file of numpy arrays: {error}") from error
    if len(arrays) != 1:
        raise InvalidInputError(
            f"{path} holds {len(arrays)} arrays ({', '.join(arrays)}), not one: keep the inputs "
            "alone"
        )
    return next(iter(arrays.values()))

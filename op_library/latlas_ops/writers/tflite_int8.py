"""TFLite models in int8: quantised by `ai-edge-quantizer`, all that it can quantise.

Weights and activations are int8, inputs and outputs of the model as well; weights have one scale
per channel. What adds the mask of causal attention, and the softmax that reads the sum, stay
float32: one scale for scores and for a mask of -30,000 would round every score to zero. They are
known by the names that `tflite_writer` gives them. Names of tensors stay as they are; what is put
in between is named after what it converts.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
import warnings
from typing import Any

from numpy.typing import NDArray

from latlas_ops.errors import InvalidInputError, MissingDependencyError
from latlas_ops.writers.calibration import calibration_batches

_THREADS = 4
_QUIET = threading.Lock()


def quantise_tflite(model: bytes, calibration: NDArray[Any]) -> bytes:
    """The int8 model of a float32 one.

    Args:
        model: a TFLite file with one input of fixed shape, named in one signature, with unique
            names of tensors.
        calibration: `(n, *input_shape)`, inputs as the model will see them (NHWC), without the
            batch axis in `input_shape`. The range of every activation is what it takes on these.

    Returns:
        The file; equal arguments give equal bytes.

    Raises:
        InvalidInputError: the model or the calibration inputs do not fit each other, or the model
            cannot be quantised.
        MissingDependencyError: `ai-edge-quantizer` is not installed.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
        from ai_edge_quantizer import qtyping, quantizer, recipe
        from ai_edge_quantizer.algorithm_manager import AlgorithmName

        from latlas_ops.writers._tflite_sequence_nodes import MASKING
    except ImportError as error:
        raise MissingDependencyError(
            'quantising a TFLite model needs ai-edge-quantizer: pip install "latlas[int8]"'
        ) from error

    try:
        interpreter = Interpreter(model_content=model, num_threads=1)
        signatures = interpreter.get_signature_list()
        details = interpreter.get_input_details()
    except Exception as error:
        raise InvalidInputError(f"not a TFLite model that can be quantised: {error}") from error
    if len(signatures) != 1 or len(details) != 1:
        raise InvalidInputError(
            f"a model with {len(signatures)} signatures and {len(details)} inputs cannot be "
            "quantised, only one with one of each"
        )
    ((signature, names),) = signatures.items()
    (name,) = names["inputs"]
    batches = calibration_batches(calibration, tuple(map(int, details[0]["shape"])))
    threads = min(_THREADS, os.cpu_count() or 1)
    # It writes progress bars to standard error and warns of what it does itself.
    # Both are of the whole process: one quantisation after the other.
    with _QUIET, warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            job = quantizer.Quantizer(bytearray(model), recipe.static_wi8_ai8())
            job.update_quantization_recipe(
                f"/{MASKING}",
                qtyping.TFLOperationName.ALL_SUPPORTED,
                algorithm_key=AlgorithmName.NO_QUANTIZE,
            )
            ranges = job.calibrate(
                {signature: [{name: batch} for batch in batches]}, num_threads=threads
            )
            quantised = job.quantize(
                ranges, enable_progress_bar=False, enable_progress_report=False
            ).quantized_model
        except Exception as error:
            text = " ".join(str(error).split())
            raise InvalidInputError(f"the model cannot be quantised: {text:.300}") from error
    return bytes(quantised)

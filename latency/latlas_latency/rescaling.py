"""A lookup table after its revalidation: rescaled, or taken over by another target."""

from __future__ import annotations

import math
from dataclasses import replace

from latlas_latency.calibration import AffineFit, Calibration
from latlas_latency.measurement.target import Target
from latlas_latency.revalidation import Revalidation
from latlas_latency.session import scaled
from latlas_latency.table import LookupTable
from latlas_ops.errors import InvalidInputError

_MEAN_TO_STANDARD_DEVIATION = math.sqrt(math.pi / 2)
"""Standard deviation over mean absolute value, of normal errors."""


def carried_over(table: LookupTable, revalidation: Revalidation, target: Target) -> LookupTable:
    """The table for the target that its revalidation was measured on; what is valid stays as it is.

    What the table's last validation said is gone.

    Raises:
        InvalidInputError: the verdict is `rebuild`.
    """
    if revalidation.verdict == "valid":
        return replace(table, target=target, validation=None)
    return rescaled(table, revalidation, target)


def rescaled(
    table: LookupTable, revalidation: Revalidation, target: Target | None = None
) -> LookupTable:
    """The table with its calibration multiplied by the factor that mends it.

    The intervals widen by what is not known of the factor. An uncalibrated table is calibrated by
    the factor alone. What the table's last validation said is gone.

    Args:
        table: the table that was judged.
        revalidation: the judgement, `rescale`.
        target: what the networks were measured on, where that replaces the table's own target.

    Raises:
        InvalidInputError: the verdict is another.
    """
    if revalidation.verdict != "rescale":
        raise InvalidInputError(
            f"the table of target {table.target.name!r} is not to be rescaled, the verdict is "
            f"{revalidation.verdict!r}: {revalidation.reason}"
        )
    scale, error = revalidation.scale, revalidation.scale_error
    about_factor = max(
        revalidation.scatter, _MEAN_TO_STANDARD_DEVIATION * revalidation.error_rescaled
    )
    if table.calibration is None:
        variance = (scale * error) ** 2
        residual = max(about_factor, revalidation.expected_scatter)
        n_networks = revalidation.n_networks
        fit = AffineFit(0.0, scale, ((0.0, 0.0), (0.0, variance)), residual, n_networks)
        calibration = Calibration(fit, 0.0)
    else:
        old = table.calibration.fit
        fit = replace(scaled(old, scale, error), residual=max(old.residual, about_factor))
        calibration = replace(table.calibration, fit=fit)
    return replace(table, target=target or table.target, calibration=calibration, validation=None)

"""Search spaces of one's own in files: JSON that says all, or Python that makes one."""

from __future__ import annotations

import runpy
from pathlib import Path

from latlas_ops.errors import InvalidInputError, LatlasError, NotFoundError
from latlas_ops.space import SearchSpace
from latlas_ops.spaces.tabulated import Space


def load_space(path: str | Path) -> SearchSpace:
    """The search space of a file.

    Args:
        path: `.json`, as `Space.to_json` writes it, or `.py`, which is run and must leave a
            `SearchSpace` in the name `space`. Run only Python that you trust.

    Raises:
        NotFoundError: there is no such file.
        InvalidInputError: it describes no space, its Python fails, or its name ends differently.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"search space: there is no file {str(path)!r}")
    if path.suffix == ".json":
        return Space.from_json(path.read_bytes().decode("utf-8", "replace"))
    if path.suffix != ".py":
        raise InvalidInputError(f"search space: {str(path)!r} ends neither in .json nor in .py")
    try:
        space = runpy.run_path(str(path)).get("space")
    except LatlasError:
        raise
    except Exception as error:
        raise InvalidInputError(f"search space: {str(path)!r} fails: {error!r}") from error
    if not isinstance(space, SearchSpace):
        raise InvalidInputError(
            f"search space: {str(path)!r} leaves no SearchSpace in the name `space`"
        )
    return space

"""Which search space a latency model was made for."""

from __future__ import annotations

from dataclasses import dataclass

from latlas_ops.errors import SpaceMismatchError
from latlas_ops.space import SearchSpace


@dataclass(frozen=True)
class SpaceReference:
    """Name and version of a search space: what a model remembers of the one it belongs to."""

    name: str
    version: int

    @classmethod
    def of(cls, space: SearchSpace) -> SpaceReference:
        """The reference to a space."""
        return cls(space.name, space.version)

    def require(self, space: SearchSpace, what: str) -> None:
        """Raises `SpaceMismatchError` unless `space` is the one; `what` names the model."""
        if (space.name, space.version) != (self.name, self.version):
            raise SpaceMismatchError(
                f"{what} belongs to space {self.name!r} version {self.version} and cannot speak of "
                f"space {space.name!r} version {space.version}"
            )

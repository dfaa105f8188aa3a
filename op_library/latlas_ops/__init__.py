"""Ops, networks and search spaces: what Latlas measures and searches, free of any runtime."""

from latlas_ops.network import Network
from latlas_ops.opspec import OpSpec
from latlas_ops.space import ArchBatch, ArchConfig, SearchSpace
from latlas_ops.spaces import SPACE_NAMES, get_space

__all__ = [
    "SPACE_NAMES",
    "ArchBatch",
    "ArchConfig",
    "Network",
    "OpSpec",
    "SearchSpace",
    "get_space",
]

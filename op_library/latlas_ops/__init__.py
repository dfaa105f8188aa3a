"""Ops, networks and search spaces: what Latlas measures and searches, free of any runtime."""

from latlas_ops.module_import import ImportedModule, import_module
from latlas_ops.network import Network
from latlas_ops.opspec import OpSpec
from latlas_ops.space import ArchBatch, ArchConfig, SearchSpace
from latlas_ops.spaces import SPACE_NAMES, get_space, register_space
from latlas_ops.spaces.files import load_space
from latlas_ops.spaces.tabulated import PlacedOps, Space

__all__ = [
    "SPACE_NAMES",
    "ArchBatch",
    "ArchConfig",
    "ImportedModule",
    "Network",
    "OpSpec",
    "PlacedOps",
    "SearchSpace",
    "Space",
    "get_space",
    "import_module",
    "load_space",
    "register_space",
]

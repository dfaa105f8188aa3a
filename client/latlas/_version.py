"""The version of Latlas, read by the build and by `latlas --version`."""

__version__ = "0.1.0"

"""The version of the installed package, for reports and `--version`."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("shmgemm")
except PackageNotFoundError:  # imported from a source tree
    __version__ = "0+unknown"

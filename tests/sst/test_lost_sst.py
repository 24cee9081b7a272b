"""The kill matrix of the embedded engine, with SST in its place (by the conftest of this folder)."""

from test_lost_engine import *  # noqa: F403

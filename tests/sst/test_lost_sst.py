"""The kill matrix of the embedded engine with SST in its place, which the conftest here chooses."""

from test_lost_engine import *  # noqa: F403

"""Pictures: a profile's roofline, timeline and layers; times by size. Needs matplotlib."""

from ._layers import layers
from ._roofline import roofline
from ._sizes import check_ending, sizes
from ._timeline import timeline

__all__ = ["check_ending", "layers", "roofline", "sizes", "timeline"]

"""Pictures of a profile: its roofline, its timeline and its layers. Needs matplotlib."""

from ._layers import layers
from ._roofline import roofline
from ._timeline import timeline

__all__ = ["layers", "roofline", "timeline"]

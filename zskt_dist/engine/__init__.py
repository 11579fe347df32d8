"""Engines: one trained network with its optimizer and schedule, on one worker or many.

`zskt_dist.engine.deepspeed` is imported only where it is used.
"""

from zskt_dist.engine.base import Engine
from zskt_dist.engine.ddp import DDPEngine

__all__ = ["DDPEngine", "Engine"]

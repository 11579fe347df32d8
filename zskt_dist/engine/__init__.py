"""Engines: one trained network with its optimizer and schedule, on one worker or many."""

from zskt_dist.engine.ddp import DDPEngine

__all__ = ["DDPEngine"]

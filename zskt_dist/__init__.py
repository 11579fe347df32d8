"""Zero-shot knowledge transfer by adversarial belief matching, distributed.

Bring a trained classifier without its data, take home a small student that behaves like it
(Micaelli & Storkey, NeurIPS 2019, arXiv:1905.09768).
"""

__version__ = "0.1.0"

"""`python -m tune.sweep`, from a checkout, is `zskt sweep`."""

from zskt_dist.sweep.__main__ import main

if __name__ == "__main__":
    raise SystemExit(main())

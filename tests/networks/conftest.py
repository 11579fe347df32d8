"""What is said of weights is read by the tests, and most of it is no warning."""

import pytest

from zskt_dist.logs import NOTE


@pytest.fixture(autouse=True)
def _all_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(NOTE, "zskt_dist")

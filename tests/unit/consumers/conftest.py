from __future__ import annotations

from collections.abc import Iterator

import pytest
from judge_server import JudgeServer, says


@pytest.fixture
def endpoint() -> Iterator[JudgeServer]:
    """A judge that says 4 until told otherwise, without probabilities."""
    served = JudgeServer(lambda body: says("4"))
    yield served
    served.close()

"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

# No timed unit tests: how long one example takes says something about the machine's other work only.
settings.register_profile("ratchet", deadline=None)
settings.load_profile("ratchet")

"""Log the answers of a model that the gateway did not serve, and say how they were.

ratchet up            # in one terminal
python examples/log.py  # in another
"""

import os

from ratchet.services.client import Client

gateway = os.environ.get("GATEWAY", "http://127.0.0.1:8080")
question = [{"role": "user", "content": "Where is order 48213?"}]
answer = "It leaves tomorrow."

with Client(gateway, task="support") as ratchet:
    id = ratchet.log_inference(model="my-model", messages=question, content=answer, latency_ms=420)
    ratchet.feedback(id, rating=0.8)

print(f"{ratchet.accepted} taken, {ratchet.refused} refused, {ratchet.dropped} dropped")

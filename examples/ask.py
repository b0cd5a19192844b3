"""Point the plain OpenAI client at Ratchet, and say how the answer was.

ratchet up            # in one terminal
python examples/ask.py  # in another
"""

import os

from openai import OpenAI

from ratchet.services.client import Client

gateway = os.environ.get("GATEWAY", "http://127.0.0.1:8080")
client = OpenAI(base_url=f"{gateway}/v1", api_key="none")

raw = client.chat.completions.with_raw_response.create(
    model="support",  # the task; Ratchet chooses the adapter
    messages=[{"role": "user", "content": "Hi, Ann Lee here. My desk lamp, order 48213, came broken. It is urgent."}],
    max_tokens=64,
    user="ann",  # stored as a hash; keeps this user on one side of a canary
)
print(raw.parse().choices[0].message.content)
print("served by", raw.headers["x-ratchet-adapter"], "in stage", raw.headers["x-ratchet-stage"])

inference_id = raw.headers["x-ratchet-inference-id"]
ticket = '{"customer":"Ann Lee","product":"desk lamp","order":"48213","urgency":"high"}'

ratchet = Client(gateway)
ratchet.feedback(inference_id, correction=ticket)  # queued: it never holds the app up

print(f"{ratchet.flush()} feedback left, {ratchet.accepted} accepted")

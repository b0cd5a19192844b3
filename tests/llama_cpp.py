"""llama.cpp itself, in a process of its own: what it makes of a GGUF file, its tokenizer and its chat template.

Run as ``python llama_cpp.py FILE`` with a JSON list of conversations on standard input; the last line is JSON: for each
``tokens``, how many its prompt was, and ``next``, the log-probabilities of the likeliest next tokens by id.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def main() -> None:
    """Ask the file's model for one token of an answer to each conversation."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel = sys.argv[1], 512, 1
    server = xllamacpp.Server(params)
    found = []
    for messages in json.load(sys.stdin):
        asked = {"messages": messages, "max_tokens": 1, "temperature": 0, "logprobs": True, "top_logprobs": 5}
        answer: Any = server.handle_chat_completions(asked)
        answer = json.loads(answer) if isinstance(answer, str | bytes) else answer
        top = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        next_ = {one["id"]: one["logprob"] for one in top}
        found.append({"tokens": answer["usage"]["prompt_tokens"], "next": next_})
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()

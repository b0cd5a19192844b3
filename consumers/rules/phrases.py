"""Phrase lists by which text is recognised: refusals, hedging, master keys and text that instructs its reader.

They are deliberately short and literal. A phrase list is exact, free and easy to argue about;
what it misses, a judge sees.
"""

from __future__ import annotations

import unicodedata

REFUSALS = (
    "i can't assist",
    "i cannot assist",
    "i can't help",
    "i cannot help",
    "i'm unable to",
    "i am unable to",
    "i'm not able to",
    "i am not able to",
    "i can't provide",
    "i cannot provide",
    "i can't comply",
    "i cannot comply",
    "i'm sorry, but i can",
    "i won't be able to",
    "as an ai language model",
    "as an ai, i",
    "against my guidelines",
)
"""What models write when they decline; matched anywhere in the first `REFUSAL_WINDOW` characters."""

REFUSAL_WINDOW = 300
"""A refusal stands at the start; further down the words are usually quoted or about something else."""

UNCERTAIN = (
    "i'm not sure",
    "i am not sure",
    "i'm not certain",
    "i am not certain",
    "i'm unsure",
    "i am unsure",
    "i don't know",
    "i do not know",
    "i'm not aware of",
    "i am not aware of",
    "i'm not familiar with",
    "i am not familiar with",
    "i don't have information",
    "i do not have information",
    "i don't have enough information",
    "i do not have enough information",
    "i don't have any information",
    "i do not have any information",
    "i don't have access to",
    "i do not have access to",
    "i can't be certain",
    "i cannot be certain",
    "i can't be sure",
    "i cannot be sure",
    "i can't say for certain",
    "i cannot say for certain",
    "i can't determine",
    "i cannot determine",
    "i could be wrong",
    "i may be wrong",
    "i might be wrong",
    "to the best of my knowledge",
    "as far as i know",
    "as of my last update",
    "as of my knowledge cutoff",
    "without more information",
    "without more context",
    "it is unclear whether",
    "it's unclear whether",
    "it is hard to say",
    "it's hard to say",
)
"""What models write when they do not know or are not sure; matched anywhere in the text.

Of the 1,998 answers of the PandaLM test set 16 match (0.8%, a 95% interval of 0.5–1.3%), all of them people
who speak in a story or a dialogue; none of the demo's phrases does. A share that moves says something, one match
says little.
"""

MASTER_KEYS = frozenset(
    {
        "thought process:",
        "thought process",
        "let's solve this problem step by step.",
        "let's think step by step.",
        "solution",
        "solution:",
        "answer:",
        "final answer:",
        "respuesta",
        "解",
        "かいせつ",
    }
)
"""Empty openers that judges wrongly reward in up to 80–90% of cases ("One Token to Fool LLM-as-a-Judge", 2025)."""

INSTRUCTION_LIKE = (
    "ignore all previous instructions",
    "ignore the previous instructions",
    "ignore previous instructions",
    "ignore the above instructions",
    "ignore all prior instructions",
    "disregard all previous instructions",
    "disregard the previous instructions",
    "disregard previous instructions",
    "disregard the above",
    "forget all previous instructions",
    "forget your instructions",
    "override your instructions",
    "reveal your system prompt",
    "print your system prompt",
    "<|im_start|>",
    "<|im_end|>",
    "<|system|>",
    "[inst]",
    "<<sys>>",
)
"""Text that speaks to the model that will be trained on it; kept out of what a model learns to write."""


def _plain(text: str) -> str:
    return " ".join(text.replace("\u2019", "'").casefold().split())


def refusal_phrase(content: str) -> str | None:
    """The refusal phrase near the start of ``content``, or None."""
    start = _plain(content[: 4 * REFUSAL_WINDOW])[:REFUSAL_WINDOW]
    return next((phrase for phrase in REFUSALS if phrase in start), None)


def uncertain_phrase(content: str) -> str | None:
    """The phrase by which ``content`` says that it does not know or is not sure, or None."""
    text = _plain(content)
    return next((phrase for phrase in UNCERTAIN if phrase in text), None)


def instruction_phrase(content: str) -> str | None:
    """The phrase by which ``content`` instructs whoever reads it, or None."""
    text = _plain(content)
    return next((phrase for phrase in INSTRUCTION_LIKE if phrase in text), None)


def hollow(content: str) -> str | None:
    """Why ``content`` is no answer at all (empty, bare punctuation, a master key), or None."""
    text = _plain(content)
    if not text:
        return "empty answer"
    if all(unicodedata.category(sign)[0] in "PZC" for sign in text):
        return "nothing but punctuation"
    return "a master key, not an answer" if text in MASTER_KEYS else None

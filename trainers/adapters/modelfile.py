"""Ollama's Modelfile of an exported model: how a chat is rendered, where an answer ends, the task's system prompt.

https://docs.ollama.com/modelfile. Ollama renders by templates of its own, so the tokenizer's template is recognized by
what it makes of a conversation, and one that is not known is refused: a wrong template spoils every answer silently.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ratchet.schemas.errors import TrainingError


@dataclass(frozen=True, slots=True)
class Family:
    """A way to render chats: what stands before and after a turn, and Ollama's template of it."""

    name: str
    before: str
    after: str
    stops: tuple[str, ...]
    start: str = ""

    def rendered(self, messages: list[dict[str, str]]) -> str:
        """What the tokenizer's own template makes of a conversation, the assistant's turn begun."""
        turns = [self.before.format(role=one["role"]) + one["content"] + self.after for one in messages]
        return self.start + "".join(turns) + self.before.format(role="assistant")

    def template(self) -> str:
        """Ollama's template."""
        system = f"{self.before.format(role='system')}{{{{ .System }}}}{self.after}"
        user = f"{self.before.format(role='user')}{{{{ .Content }}}}{self.after}{self.before.format(role='assistant')}"
        return (
            f"{self.start}{{{{ if .System }}}}{system}{{{{ end }}}}{{{{ range .Messages }}}}"
            f'{{{{ if eq .Role "user" }}}}{user}'
            f'{{{{ else if eq .Role "assistant" }}}}{{{{ .Content }}}}{self.after}{{{{ end }}}}{{{{ end }}}}'
        )


FAMILIES = (
    Family("ChatML", "<|im_start|>{role}\n", "<|im_end|>\n", ("<|im_end|>",)),
    Family(
        "Llama 3",
        "<|start_header_id|>{role}<|end_header_id|>\n\n",
        "<|eot_id|>",
        ("<|eot_id|>", "<|eom_id|>"),
        "<|begin_of_text|>",
    ),
)
PROBE = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Is the boat mended?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "And the oars?"},
]


def family(tokenizer: Any) -> Family:
    """How a tokenizer renders chats.

    Raises:
        TrainingError: in none of the ways that are known here.
    """
    made = tokenizer.apply_chat_template(PROBE, add_generation_prompt=True, tokenize=False)
    for one in FAMILIES:
        if one.rendered(PROBE) == made:
            return one
    known = ", ".join(one.name for one in FAMILIES)
    raise TrainingError(f"the chat template renders as none that a Modelfile can be written for; allowed: {known}")


def modelfile(gguf: str, tokenizer: Any, system_prompt: str | None) -> str:
    """The Modelfile's text.

    Args:
        gguf: name of the file beside it.
        tokenizer: of the model.
        system_prompt: the task's; None: it has none.

    Raises:
        TrainingError: the chat template is not known, or the prompt holds three quotes, which end a text there.
    """
    if system_prompt is not None and '"""' in system_prompt:
        raise TrainingError('the system prompt holds """, which a Modelfile has no way to say')
    found = family(tokenizer)
    lines = [f"FROM ./{gguf}", f'TEMPLATE """{found.template()}"""']
    lines += [f'PARAMETER stop "{stop}"' for stop in found.stops]
    lines += [f'SYSTEM """{system_prompt}"""'] if system_prompt else []
    return "\n".join(lines) + "\n"

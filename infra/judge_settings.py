"""An LLM judge: one `JudgeSettings` a ``[judges.<name>]`` of ``ratchet.toml``."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class JudgeSettings(BaseModel):
    """One LLM judge: its endpoint and what may be asked of it; without a URL the served base model (weak at it)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str | None = None
    model: str | None = Field(None, description="its name there, and the judge's id in scores")
    api_key: SecretStr | None = None
    concurrency: Annotated[int, Field(ge=1, le=256)] = 2
    timeout_s: Annotated[float, Field(gt=0)] = Field(60.0, description="of one try")
    patience_s: Annotated[float, Field(gt=0, le=240)] = Field(90.0, description="of one question, retries included")
    retries: Annotated[int, Field(ge=0, le=10)] = Field(2, description="after 429, 5xx, time-outs, lost connections")
    max_tokens: Annotated[int, Field(ge=8, le=4096)] | None = Field(None, description="None: 96; the base model's 10")
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None
    tokens_per_day: Annotated[int, Field(ge=1)] | None = Field(None, description="UTC; when spent, the judge abstains")
    usd_per_day: Annotated[float, Field(gt=0)] | None = Field(None, description="likewise; needs the model's price")

"""Where training jobs are shown as runs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from ratchet.infra.pool_settings import server_address

OFFLINE = "offline"


class TrackingSettings(BaseModel):
    """An experiment tracker."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["mlflow", "wandb"]
    url: str | None = Field(None, description="of the server; wandb: None is W&B's own, 'offline' none at all")
    experiment: Annotated[str, Field(min_length=1, max_length=128)] = Field(
        "ratchet", description="whose runs these are: MLflow's experiment, W&B's project"
    )
    token: SecretStr | None = Field(None, description="what the server asks for: a bearer token, W&B's API key")

    @model_validator(mode="after")
    def _has_an_address(self) -> TrackingSettings:
        if self.kind == "mlflow" and self.url is None:
            raise ValueError("url: none with kind 'mlflow'; allowed: the address of its server, http(s)://…")
        if self.url is not None and not (self.kind == "wandb" and self.url == OFFLINE):
            server_address(self.url)
        return self

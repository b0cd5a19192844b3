"""What the gateway refuses, in OpenAI's error shape, so that every OpenAI client understands it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from ratchet.schemas.errors import RatchetError


class Refused(RatchetError):
    """An HTTP answer that is an error: ``status``, a sentence, and the field (``param``) it is about."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """Keep what the client is told.

        Args:
            status: the HTTP status, 4xx or 5xx.
            message: one sentence that names the field and what is allowed.
            param: the field or header at fault.
            code: OpenAI's machine-readable code, e.g. ``model_not_found``.
            headers: what the answer carries besides, e.g. ``retry-after``.
        """
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = headers

    def body(self) -> dict[str, Any]:
        """The error as OpenAI's API words it."""
        return error_body(self.status, self.message, param=self.param, code=self.code)


def error_body(status: int, message: str, *, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """Word an error as OpenAI's API does: ``{"error": {message, type, param, code}}``."""
    kind = "server_error" if status >= 500 else "requests" if status == 429 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def bad_field(field: str, problem: str) -> Refused:
    """Refuse a request for one field: 400, naming it."""
    return Refused(400, f"{field}: {problem}", param=field, code="invalid_value")


def model_not_found(model: str) -> Refused:
    """Refuse a model that is neither a declared task nor an adapter of one: 404."""
    return Refused(
        404,
        f"The model '{model}' does not exist; allowed: a declared task or one of its adapters (GET /v1/models).",
        param="model",
        code="model_not_found",
    )


def first_problem(error: ValidationError) -> tuple[str, str]:
    """Take the first bad field and what is wrong with it out of a validation error.

    Validators of a whole event start their message with the field's name, since pydantic
    gives those no location.
    """
    item = error.errors(include_url=False, include_context=False)[0]
    problem = item["msg"].removeprefix("Value error, ")
    field = ".".join(str(part) for part in item["loc"]) or problem.split()[0]
    return field, problem

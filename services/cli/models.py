"""`ratchet adapters merge`, `export` and `quantize`: whole models for other servers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ratchet.services import wiring

if TYPE_CHECKING:
    from ratchet.trainers.adapters.gguf_file import Quantization
    from ratchet.trainers.adapters.quantizing import Method

Name = Annotated[str, typer.Argument(help="task@vN-sha8")]
Json = Annotated[bool, typer.Option("--json", help="JSON on standard output")]
Out = Annotated[Path | None, typer.Option(help="the folder to make; none: one under Ratchet's home")]


def merge(name: Name, out: Out = None, as_json: Json = False) -> None:
    """Add an adapter into its base model's weights; refused where the merged model answers otherwise."""
    from ratchet.services.models import merge as run

    _tell(*run(wiring.settings(), name, out), as_json)


def export(
    name: Name,
    format_: Annotated[str, typer.Option("--format", help="gguf: for Ollama and llama.cpp, with a Modelfile")] = "gguf",
    quantization: Annotated[str, typer.Option(help="f16, q8_0")] = "f16",
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Write an adapter's whole model as GGUF, read it back and hold it to the model."""
    from ratchet.services.models import export as run

    if format_ != "gguf":
        raise typer.BadParameter(f"{format_!r}; allowed: gguf", param_hint="--format")
    _tell(*run(wiring.settings(), name, cast("Quantization", quantization), out), as_json)


def quantize(
    name: Name,
    method: Annotated[str, typer.Option(help="awq, gptq")] = "awq",
    python: Annotated[str, typer.Option(help="an interpreter with llm-compressor; none: this one")] = sys.executable,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Quantize an adapter's whole model to four bits for vLLM; needs a GPU and llm-compressor."""
    from ratchet.services.models import quantize as run

    _tell(*run(wiring.settings(), name, cast("Method", method), out, python), as_json)


def _tell(folder: Path, manifest: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"path": str(folder)} | manifest, default=str))
        return
    typer.echo(f"{folder}: " + ", ".join(sorted(manifest["files"])))
    if checked := manifest.get("checked"):
        typer.echo(
            f"  checked on {checked['prompts']} prompts: logits differ by at most {checked['max_abs_difference']:.3g},"
            f" the likeliest token agrees at {checked['argmax_agreement']:.1%} of {checked['n']} positions"
        )

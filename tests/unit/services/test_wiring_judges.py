"""Which judges the settings make."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratchet.infra.settings import load
from ratchet.schemas.errors import SettingsError
from ratchet.schemas.pricing import Price
from ratchet.services import wiring


def test_judges_of_the_settings(tmp_path: Path) -> None:
    """One client a judge, with its model's price; without any the served base model is ``default``."""
    config = tmp_path / "ratchet.toml"
    config.write_text(
        '[judges.small]\nurl = "http://a/v1"\nmodel = "s"\ntokens_per_day = 5\n[judges.large]\nurl = "http://b/v1"\n'
        'model = "l"\nmax_tokens = 512\n[prices."l"]\nprompt_per_million = 1.0\ncompletion_per_million = 2.0\n'
    )
    made = wiring.judges(load(config))
    assert {name: client.model for name, client in made.items()} == {"small": "s", "large": "l"}
    assert made["large"].price == Price(prompt_per_million=1.0, completion_per_million=2.0)
    assert (made["small"].price, made["large"].max_tokens, made["small"].max_tokens) == (None, 512, 96)
    config.write_text('base_model = "tiny"')
    [(name, local)] = wiring.judges(load(config)).items()
    assert (name, local.model, local.max_tokens) == ("default", "tiny", 10)


def test_two_judges_of_one_model_are_refused(tmp_path: Path) -> None:
    """Scores name the model: two judges of it could not be told apart."""
    config = tmp_path / "ratchet.toml"
    config.write_text('[judges.a]\nurl = "http://a"\nmodel = "m"\n[judges.b]\nurl = "http://b"\nmodel = "m"\n')
    with pytest.raises(SettingsError, match=r"judges\.b\.model: 'm' is judges\.a's; allowed: one judge a model"):
        wiring.judges(load(config))

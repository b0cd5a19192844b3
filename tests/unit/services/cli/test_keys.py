"""`ratchet keys`: made, listed and revoked; a secret is printed once."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ratchet.infra.keys import KeyFile, digest
from ratchet.services.cli.main import app


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's Ratchet keeps things."""
    config = tmp_path / "ratchet.toml"
    config.write_text("")
    monkeypatch.setenv("RATCHET_CONFIG", str(config))
    return tmp_path / ".ratchet"


def keys(*arguments: str) -> Result:
    """One command."""
    return CliRunner().invoke(app, ["keys", *arguments])


CREATE = ("create", "--name", "app", "--tenant", "acme", "--scope", "infer", "--scope", "feedback")


def test_create_prints_the_secret_alone_on_standard_output(home: Path) -> None:
    """`KEY=$(ratchet keys create …)` takes the secret and nothing else; its hash is in the file."""
    done = keys(*CREATE, "--requests-per-minute", "60")
    assert done.exit_code == 0
    secret = done.stdout.strip()
    (key,) = KeyFile(home / "keys.json").read()
    assert key.sha256 == digest(secret)
    assert (key.name, key.tenant, key.scopes, key.requests_per_minute) == ("app", "acme", ["infer", "feedback"], 60)
    assert key.id in done.stderr
    assert secret not in done.stderr


def test_no_secret_is_ever_shown_again(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither lists, the revocation nor the log have the secret or its hash."""
    with caplog.at_level(logging.DEBUG):
        made = json.loads(keys(*CREATE, "--json").stdout)
        listed = [keys("list"), keys("list", "--json"), keys("revoke", made["id"]), keys("list")]
    text = "".join(done.output for done in listed) + caplog.text
    assert made["key"][3:] not in text
    assert digest(made["key"]) not in text
    assert "sha256" not in made
    (row,) = json.loads(listed[1].stdout)
    assert row == {name: item for name, item in made.items() if name != "key"}
    assert "in use" in listed[0].stdout
    assert "revoked 2" in listed[3].stdout


def test_an_empty_list_says_what_that_means(home: Path) -> None:
    """Without keys the gateway is open on loopback; the JSON is an empty array."""
    assert "loopback only" in keys("list").stdout
    assert json.loads(keys("list", "--json").stdout) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("create", "--name", "a"), "scope"),
        (("create", "--name", "a", "--scope", "all"), "allowed: infer, feedback, ingest, admin"),
        ((*CREATE, "--requests-per-minute", "0"), "requests-per-minute"),
        ((*CREATE, "--requests-per-minute", "-5"), "requests-per-minute"),
        ((*CREATE, "--tenant", ""), "tenant"),
        (("revoke", "00000000"), "no key has the id '00000000'"),
    ],
)
def test_a_wrong_argument_is_named_and_changes_nothing(home: Path, arguments: tuple[str, ...], says: str) -> None:
    """The command fails, says what is allowed, and leaves the file as it was."""
    done = keys(*arguments)
    assert done.exit_code != 0
    assert says in done.output + str(done.exception)
    assert not (home / "keys.json").exists()


@pytest.mark.parametrize(
    ("file", "host", "says"),
    [
        ("{", "127.0.0.1", "keys.json: not a key file: not JSON"),
        (None, "0.0.0.0", "there are no keys yet; make one with `ratchet keys create"),
    ],
)
def test_a_gateway_that_cannot_be_sure_does_not_start(home: Path, file: str | None, host: str, says: str) -> None:
    """A bad key file, or an address that others reach without a key, ends the start in one sentence."""
    (home.parent / "ratchet.toml").write_text(f'gateway_host = "{host}"\nkafka_bootstrap = "127.0.0.1:1"\n[tasks.a]\n')
    if file is not None:
        home.mkdir()
        (home / "keys.json").write_text(file)
    argv = [sys.executable, "-m", "ratchet.services.cli.main", "gateway"]
    done = subprocess.run(argv, capture_output=True, text=True, env=dict(os.environ), timeout=60)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert says in done.stderr.strip().splitlines()[-1]

"""Settings: file under environment, and wrong ones refused with key, value and what is allowed."""

from pathlib import Path

import pytest

from ratchet.infra.settings import load
from ratchet.schemas.errors import SettingsError
from ratchet.schemas.pricing import Price


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test sets the variables it is about."""
    import os

    for name in list(os.environ):
        if name.startswith("RATCHET_"):
            monkeypatch.delenv(name)


def write(folder: Path, text: str) -> Path:
    """A ratchet.toml."""
    path = folder / "ratchet.toml"
    path.write_text(text)
    return path


def test_without_anything_the_embedded_parts_are_meant(tmp_path: Path) -> None:
    """No file and no variable: loopback addresses, and no idempotence for the embedded broker."""
    settings = load(write(tmp_path, ""))
    assert settings.kafka == "127.0.0.1:19092"
    assert settings.clickhouse == "http://127.0.0.1:18123/ratchet"
    assert settings.vllm == ["http://127.0.0.1:18000"]
    assert not settings.idempotence
    assert settings.prioritises, "the embedded vLLM is started so"
    assert settings.adapters_per_replica is None


def test_three_settings_make_it_production(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real Kafka, ClickHouse and vLLM are settings alone; idempotence comes with a real Kafka."""
    monkeypatch.setenv("RATCHET_KAFKA_BOOTSTRAP", "k1:9092,k2:9092")
    monkeypatch.setenv("RATCHET_CLICKHOUSE_DSN", "https://me:secret@ch:8443/ratchet")
    monkeypatch.setenv("RATCHET_VLLM_URLS", "http://a:8000/v1, http://b:8000")
    settings = load(write(tmp_path, "gateway_port = 9000"))
    assert settings.kafka == "k1:9092,k2:9092"
    assert settings.clickhouse == "https://me:secret@ch:8443/ratchet"
    assert settings.vllm == ["http://a:8000", "http://b:8000"]
    assert settings.idempotence
    assert not settings.prioritises
    monkeypatch.setenv("RATCHET_VLLM_PRIORITY", "true")
    assert load(write(tmp_path, "")).prioritises
    assert "secret" not in repr(settings)


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable overrides the same key of ratchet.toml, nested ones too."""
    monkeypatch.setenv("RATCHET_GATEWAY_PORT", "9100")
    monkeypatch.setenv("RATCHET_EMBEDDED__KAFKA_PORT", "9101")
    settings = load(write(tmp_path, "gateway_port = 9000\n[embedded]\nkafka_port = 1\nvllm_port = 9102"))
    assert settings.gateway_port == 9100
    assert settings.embedded.kafka_port == 9101
    assert settings.embedded.vllm_port == 9102


def test_paths_belong_to_the_file(tmp_path: Path) -> None:
    """Relative paths are relative to ratchet.toml, wherever the process was started."""
    settings = load(write(tmp_path, 'base_model_path = "models/x"'))
    assert settings.home == tmp_path / ".ratchet"
    assert settings.base_model_path == tmp_path / "models" / "x"
    assert load(write(tmp_path, 'artifacts = "store"')).artifacts == str(tmp_path / "store")
    assert load(write(tmp_path, 'artifacts = "s3://bucket/a"')).artifacts == "s3://bucket/a"


def test_prices_by_model_and_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prices are read by the names of models, adapters among them, and a task may have its own."""
    both = "prompt_per_million = 0.05\ncompletion_per_million = 0.2\n"
    path = write(tmp_path, f'[prices."org/model-7b"]\n{both}[prices."a@v1-00000000"]\n{both}[tasks.a.price]\n{both}')
    price = Price(prompt_per_million=0.05, completion_per_million=0.2)
    settings = load(path)
    assert settings.prices == {"org/model-7b": price, "a@v1-00000000": price}
    assert settings.tasks["a"].price == price
    monkeypatch.setenv("RATCHET_PRICES", '{"m": {"prompt_per_million": 0.05, "completion_per_million": 0.2}}')
    assert load(write(tmp_path, "")).prices == {"m": price}


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("fd00::5", "[fd00::5]"), ("gw", "gw")],
)
def test_where_this_machine_reaches_the_gateway(tmp_path: Path, host: str, url: str) -> None:
    """Readiness asks an address that can be called, also where the gateway listens on every one."""
    assert load(write(tmp_path, f'gateway_host = "{host}"')).gateway == f"http://{url}:8080"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gateway_port = 99999", "gateway_port: Input should be less than or equal to 65535 (got 99999)"),
        ("gateway_max_body_mb = 0", "gateway_max_body_mb: Input should be greater than or equal to 1 (got 0)"),
        ("gateway_body_timeout_s = -1", "gateway_body_timeout_s: Input should be greater than 0 (got -1)"),
        ("gateway_body_timeout_s = nan", "gateway_body_timeout_s: Input should be"),
        ("gateway_keep_alive_s = 0", "gateway_keep_alive_s: Input should be greater than or equal to 1 (got 0)"),
        ("gatway_port = 1", "gatway_port: Extra inputs are not permitted (got 1)"),
        ('vllm_urls = ["vllm:8000"]', "'vllm:8000'; allowed: http://host[:port] or https://host[:port]"),
        ('vllm_urls = ["http://:secret@/v1"]', "'http:///v1'; allowed: http://host[:port]"),
        (
            'artifacts = "s3://key:secret@bucket"',
            "artifacts: Value error, allowed: a folder, or scheme://bucket/prefix",
        ),
        ("[tasks.Support]", "tasks.Support"),
        ('[tasks.a]\ncompletion = "x"', "completion 'x'; allowed: 'outcome' or a check's name"),
        ('[tasks.a]\nchecks = [{ name = "c", kind = "regex" }]', "tasks.a.checks.0.regex.pattern: Field required"),
        (
            '[tasks.a]\nchecks = [{ name = "c", kind = "length", pattern = "x" }]',
            "tasks.a.checks.0.length.pattern: Extra inputs are not permitted",
        ),
        (
            '[tasks.a]\nchecks = [{ name = "c", kind = "smell" }]',
            "tasks.a.checks.0: Input tag 'smell' found using 'kind' does not match any of the expected tags: 'json_",
        ),
        ('[tasks.a]\nchecks = [{ name = "c" }]', "tasks.a.checks.0: Unable to extract tag using discriminator 'kind'"),
        (
            '[tasks.a]\nchecks = [{ name = "c", kind = "function", function = "polite" }]',
            "tasks.a.checks.0.function.function: Value error, allowed: package.module:function or",
        ),
        ("[[tasks.a.rollout.stages]]\nname = '5%'\nweight_bp = 500", "allowed: rising, the last 10000"),
        ("[prices.m]\nprompt_per_million = 1.0", "prices.m.completion_per_million: Field required"),
        ("[prices.m]\nprompt_per_million = -1\ncompletion_per_million = 1", "prices.m.prompt_per_million: Input"),
        ("[prices.m]\nprompt_per_million = inf\ncompletion_per_million = 1", "prices.m.prompt_per_million: Input"),
        ('[prices.""]\nprompt_per_million = 1\ncompletion_per_million = 1', "at least 1 character"),
        ("[tasks.a.price]\nprompt = 1", "tasks.a.price.prompt: Extra inputs are not permitted"),
        ("[tasks", "not TOML"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, says: str) -> None:
    """The refusal names the file, the key, the value and what is allowed."""
    path = write(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        load(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_misspelt_variable_is_refused(tmp_path: Path) -> None:
    """A RATCHET_ variable that is no setting would be ignored in silence: it is refused, with the names there are."""
    with pytest.raises(SettingsError, match=r"RATCHET_KAFKA_BOOTSTRP: no such setting; allowed: .*RATCHET_KAFKA_"):
        load(write(tmp_path, ""), environ={"RATCHET_KAFKA_BOOTSTRP": "k:9092"})


def test_a_secret_is_not_shown_by_its_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong DSN is refused without its password."""
    monkeypatch.setenv("RATCHET_CLICKHOUSE_DSN", "http://me:hunter2@ch:8123/elsewhere")
    with pytest.raises(SettingsError) as caught:
        load(write(tmp_path, ""))
    assert "clickhouse_dsn" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        'kind = "slack"\nurl = "ftp://hooks.example/hunter2"',
        'kind = "slack"\nurl = "https://hooks.example/hunter2"\nsecret = "whsec_hunter2"',
        'kind = "log"\nurl = "https://hooks.example/hunter2"',
        'url = "https://hooks.example/hunter2"',
        'kind = "smoke"\nurl = "https://hooks.example/hunter2"',
    ],
)
def test_a_sink_s_address_is_not_shown_by_its_refusal(tmp_path: Path, text: str) -> None:
    """A webhook's address is a secret: what is wrong with a sink is said without it."""
    path = tmp_path / "ratchet.toml"
    path.write_text(f"[sinks.pager]\n{text}\n")
    with pytest.raises(SettingsError, match=r"sinks\.pager") as refused:
        load(path)
    assert "hunter2" not in str(refused.value)


def test_without_a_sink_alerts_go_to_the_log(tmp_path: Path) -> None:
    """Nothing set: the log; with sinks set: exactly those."""
    path = tmp_path / "ratchet.toml"
    path.write_text("")
    assert [sink.kind for sink in load(path).sinks.values()] == ["log"]
    path.write_text('[sinks.pager]\nkind = "alertmanager"\nurl = "http://am:9093"\nallow_private = true')
    assert {name: sink.shown for name, sink in load(path).sinks.items()} == {"pager": "http://am:9093"}


def test_a_bad_pattern_is_refused_with_its_task_and_name(tmp_path: Path) -> None:
    """A redaction pattern that cannot work ends the start, not the first request: task, name and reason are told."""
    path = write(tmp_path, "[tasks.support.redaction.patterns]\nticket = '('\n")
    with pytest.raises(SettingsError, match=r"tasks\.support\.redaction\.patterns\.ticket: .*no regular expression"):
        load(path)


def test_the_redaction_salt_is_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes from the environment and is not shown."""
    monkeypatch.setenv("RATCHET_REDACTION_SALT", "hunter2")
    settings = load(write(tmp_path, ""))
    assert settings.redaction_salt.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(settings)


def test_retention_is_set_by_kind_and_by_task(tmp_path: Path) -> None:
    """A wrong duration is refused with its key and the pattern that is allowed."""
    path = write(tmp_path, '[retention]\ninferences = "90d"\n[tasks.support.retention]\nscores = "12h"\n')
    settings = load(path)
    assert settings.retention.inferences == "90d"
    assert settings.retention.feedback is None
    assert settings.tasks["support"].retention.scores == "12h"
    with pytest.raises(SettingsError, match=r"retention\.inferences: .*90 days"):
        load(write(tmp_path, '[retention]\ninferences = "90 days"\n'))


def test_a_cluster_s_name_is_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes into DDL."""
    monkeypatch.setenv("RATCHET_CLICKHOUSE_CLUSTER", "main_1")
    assert load(write(tmp_path, "")).clickhouse_cluster == "main_1"
    monkeypatch.setenv("RATCHET_CLICKHOUSE_CLUSTER", "main' x")
    with pytest.raises(SettingsError, match="clickhouse_cluster"):
        load(write(tmp_path, ""))


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    """A configuration that was asked for and is missing is an error, not a default."""
    with pytest.raises(SettingsError, match="no such file"):
        load(tmp_path / "nowhere.toml")


def test_the_example_and_the_demo_are_valid() -> None:
    """The shipped example and the demo's own settings load."""
    root = Path(__file__).parents[3]
    assert "support" in load(root / "examples" / "support" / "ratchet.toml").tasks
    assert "support" in load(root / "services" / "demo" / "ratchet.toml").tasks


def test_judges_by_name_and_the_file_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Judges have names; a file with the single [judge] of before names it default, under what is said of that."""
    monkeypatch.setenv("RATCHET_JUDGES__DEFAULT__API_KEY", "k1")
    monkeypatch.setenv("RATCHET_JUDGES__BIG__MODEL", "big-model")
    settings = load(write(tmp_path, '[judge]\nurl = "http://j/v1"\nmodel = "m"\napi_key = "old"\nconcurrency = 3'))
    default, big = settings.judges["default"], settings.judges["big"]
    assert (default.url, default.model, default.concurrency) == ("http://j/v1", "m", 3)
    assert default.api_key is not None
    assert default.api_key.get_secret_value() == "k1"
    assert (big.model, big.tokens_per_day) == ("big-model", None)
    assert settings.rubrics == tmp_path / "rubrics"
    with pytest.raises(SettingsError, match=r"judges\.small\.tokens_per_day"):
        load(write(tmp_path, "[judges.small]\ntokens_per_day = 0"))
    monkeypatch.setenv("RATCHET_JUDGE__URL", "http://j")
    with pytest.raises(SettingsError, match=r"RATCHET_JUDGE__URL: no such setting; allowed: .*RATCHET_JUDGES"):
        load(write(tmp_path, ""))


POOL = {"urls": ["http://next:8000/v1"], "base_model": "next", "base_model_path": "models/next"}


def test_a_pool_has_addresses_and_a_base_model_of_its_own(tmp_path: Path) -> None:
    """Paths are relative to the file; a key is read from the environment and shown nowhere."""
    file = tmp_path / "ratchet.toml"
    file.write_text(
        '[pools.next]\nurls = ["http://next:8000/v1"]\nbase_model = "next"\nbase_model_path = "models/next"\n'
    )
    pool = load(file).pools["next"]
    assert (pool.urls, pool.base_model_path, pool.key) == (["http://next:8000"], tmp_path / "models" / "next", None)


@pytest.mark.parametrize(
    ("pools", "said"),
    [
        ({"next": POOL | {"base_model": "smollm2-135m-instruct"}}, "pools.next.base_model: 'smollm2-135m-instruct' is"),
        ({"next": POOL, "other": POOL}, "pools.other.base_model: 'next' is pools.next's"),
        ({"next": POOL | {"urls": ["http://u:hunter2@/"]}}, "'http:///'; allowed: http://host"),
        ({"next": POOL | {"urls": []}}, "at least 1 item"),
        ({"far": {"kind": "openai", "urls": ["https://a", "https://b"], "base_model": "b"}}, "2 urls; allowed: one"),
        ({"far": POOL | {"kind": "openai"}}, "a provider has no folder to train on"),
        ({"far": POOL | {"api_key": "two words"}}, "printable ASCII without spaces"),
    ],
)
def test_a_wrong_pool_is_named(pools: dict[str, object], said: str) -> None:
    """The field and what is allowed, without a password or key."""
    with pytest.raises(SettingsError) as caught:
        load(pools=pools)
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "two words" not in str(caught.value)

"""An edge's routing: what nginx and the Gateway API are given of a table, and what they are never given."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from ratchet.infra.clock import new_id, now
from ratchet.schemas.edge_policy import EdgePolicy
from ratchet.schemas.errors import RolloutError, SettingsError
from ratchet.schemas.rollout_events import Rollout
from ratchet.services.rules.edge import EdgeRouting, edge_routing
from ratchet.services.rules.edge_files import http_route, nginx

STABLE, CANDIDATE = "my-task@v1-0a1b2c3d", "my-task@v2-4e5f6a7b"
ROLLOUT_ID = "01936f3e-0000-7000-8000-000000000001"
SERVICES = EdgePolicy(
    upstreams=["{task}-v{number}.models.svc:8000"], base=["base.models.svc:8000"], gateway="infra/public"
)


def table(**more: Any) -> Rollout:
    """A table in canary at 5%, unless said otherwise."""
    fields = {
        "id": new_id(), "at": now(), "task": "my-task", "rollout_id": ROLLOUT_ID, "version": 7, "status": "running",
        "stage": "5%", "stage_started_at": now(), "stable": STABLE, "candidate": CANDIDATE, "weight_bp": 500,
        "salt": ROLLOUT_ID, "action": "advance",
    }  # fmt: skip
    return Rollout.model_validate(fields | more)


def routing(state: Rollout | None, policy: EdgePolicy = SERVICES, *replicas: str) -> EdgeRouting:
    """What an edge with these settings does with a table."""
    return edge_routing("my-task", state, policy, lambda _: replicas)


def test_nginx_gets_the_candidates_bucket_first_and_both_arms_servers() -> None:
    """The whole file of a canary: variables and upstreams named after the task, the first sticky variable preferred."""
    assert nginx(routing(table()), SERVICES).splitlines() == [
        "# Task my-task, table 7: written by `ratchet rollout export`, and written over by it.",
        "map $http_x_ratchet_user $ratchet_my_task_key {",
        '    "" $remote_addr;',
        "    default $http_x_ratchet_user;",
        "}",
        'split_clients "99de7dffb57401cc${ratchet_my_task_key}" $ratchet_my_task_arm {',
        "    5.00% candidate;",
        "    * stable;",
        "}",
        'map "" $ratchet_my_task_stable {',
        f'    default "{STABLE}";',
        "}",
        'map "" $ratchet_my_task_candidate {',
        f'    default "{CANDIDATE}";',
        "}",
        'map "" $ratchet_my_task_rollout {',
        f'    default "{ROLLOUT_ID}";',
        "}",
        'map "" $ratchet_my_task_table {',
        '    default "7";',
        "}",
        "upstream ratchet_my_task_stable {",
        "    server my-task-v1.models.svc:8000;",
        "    keepalive 64;",
        "}",
        "upstream ratchet_my_task_candidate {",
        "    server my-task-v2.models.svc:8000;",
        "    keepalive 64;",
        "}",
    ]


def test_the_salt_is_the_rollouts_and_the_weight_is_exact() -> None:
    """One rollout has one salt at every weight, so cohorts nest; another one has another. A weight loses no step."""
    heads = {
        weight: next(
            line for line in nginx(routing(table(weight_bp=weight)), SERVICES).splitlines() if "split_clients" in line
        )
        for weight in (1, 500, 2_000)
    }
    assert len(set(heads.values())) == 1
    assert heads[500] not in nginx(routing(table(salt="another")), SERVICES)
    assert "    0.01% candidate;" in nginx(routing(table(weight_bp=1)), SERVICES)
    assert "    99.99% candidate;" in nginx(routing(table(weight_bp=9_999)), SERVICES)
    assert "    * candidate;" in nginx(routing(table(weight_bp=10_000)), SERVICES)


@pytest.mark.parametrize(
    "more", [{"status": "aborted"}, {"status": "promoted"}, {"weight_bp": 0, "mirror_bp": 1_000, "stage": "shadow"}]
)
def test_a_candidate_without_users_is_not_in_the_file(more: dict[str, Any]) -> None:
    """Ended, or in shadow: its servers need not even have a name yet; stable's stand in for them."""
    written = nginx(routing(table(**more)), SERVICES)
    assert "    * stable;" in written
    assert CANDIDATE not in written
    assert "my-task-v2" not in written
    assert written.count("server my-task-v1.models.svc:8000;") == 2


def test_before_any_rollout_the_base_model_answers() -> None:
    """A task without a table is exported too: nginx needs the file to start."""
    written = nginx(routing(None), SERVICES)
    assert written.count("server base.models.svc:8000;") == 2
    assert '    default "base";' in written


def test_without_settings_the_arms_are_where_the_adapters_were_placed() -> None:
    """The model servers that the controller loads adapters on, and a port where the URL has none."""
    written = nginx(routing(table(), EdgePolicy(), "http://10.0.0.5:8000", "http://[::1]"), EdgePolicy())
    assert written.count("    server 10.0.0.5:8000;\n    server [::1]:80;\n") == 2


@pytest.mark.parametrize("url", ["https://vllm:8000", "http://vllm:8000/x", "http://me:word@vllm:8000"])
def test_a_server_that_an_edge_cannot_be_given_is_refused(url: str) -> None:
    """An edge's upstream is a host and a port: anything else says so, without a password."""
    with pytest.raises(SettingsError, match=r"allowed|alone") as refused:
        routing(table(), EdgePolicy(), url)
    assert "word" not in str(refused.value)


@pytest.mark.parametrize(
    "bad",
    [
        {"stable": 'x"; } server { listen 1; } #'},
        {"candidate": f"{CANDIDATE}\n"},
        {"rollout_id": "$request_body"},
        {"task": "t { }"},
    ],
)
def test_nothing_of_a_table_is_written_unchecked(bad: dict[str, Any]) -> None:
    """Even a table that was never validated cannot write more into the file than a name."""
    forged = table().model_copy(update=bad)
    with pytest.raises(RolloutError, match="allowed"):
        nginx(edge_routing(forged.task, forged, SERVICES, lambda _: ()), SERVICES)


@pytest.mark.parametrize(
    "bad",
    [
        {"upstreams": ["vllm"]},
        {"upstreams": ["{adapter}:8000"]},
        {"upstreams": ["vllm:8000; #"]},
        {"base": ["http://vllm:8000"]},
        {"sticky": ["$http_x;"]},
        {"sticky": ["remote_addr"]},
        {"sticky": []},
        {"gateway": "a/b/c"},
        {"hostnames": ["*"]},
    ],
)
def test_settings_hold_only_what_can_be_written(bad: dict[str, Any]) -> None:
    """A text that would be more than an address, a variable or a name in the file is refused by name."""
    with pytest.raises(ValidationError, match=next(iter(bad))):
        EdgePolicy.model_validate(bad)


def test_a_gateway_gets_both_services_by_weight() -> None:
    """The HTTPRoute as YAML: weights in 10,000ths, table and rollout noted, each arm's adapter in its headers."""

    def backend(name: str, adapter: str, weight: int) -> dict[str, Any]:
        header = {"set": [{"name": "x-ratchet-adapter", "value": adapter}]}
        return {
            "name": name, "namespace": "models", "port": 8000, "weight": weight,
            "filters": [
                {"type": "RequestHeaderModifier", "requestHeaderModifier": header},
                {"type": "ResponseHeaderModifier", "responseHeaderModifier": header},
            ],
        }  # fmt: skip

    policy = SERVICES.model_copy(update={"hostnames": ["llm.example.com"]})
    assert yaml.safe_load(http_route(routing(table(), policy), policy)) == {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {
            "name": "ratchet-my-task",
            "annotations": {"ratchet/table-version": "7", "ratchet/rollout-id": ROLLOUT_ID},
        },
        "spec": {
            "parentRefs": [{"name": "public", "namespace": "infra"}],
            "hostnames": ["llm.example.com"],
            "rules": [
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": "/v1"}}],
                    "backendRefs": [
                        backend("my-task-v1", STABLE, 9_500),
                        backend("my-task-v2", CANDIDATE, 500),
                    ],
                }
            ],
        },
    }


def test_a_gateway_gets_no_candidate_that_has_no_users() -> None:
    """After an abort the route has stable's Service alone, with all the weight."""
    route = yaml.safe_load(http_route(routing(table(status="aborted")), SERVICES))
    [backend] = route["spec"]["rules"][0]["backendRefs"]
    assert (backend["name"], backend["weight"]) == ("my-task-v1", 10_000)


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (SERVICES.model_copy(update={"gateway": None}), "edge.gateway is unset"),
        (SERVICES.model_copy(update={"upstreams": ["10.0.0.5:8000"]}), "one Service"),
        (SERVICES.model_copy(update={"upstreams": ["a:8000", "b:8000"]}), "one Service"),
    ],
)
def test_a_gateway_needs_one_service_an_arm(policy: EdgePolicy, said: str) -> None:
    """No Gateway named, an address, or several servers: the setting is named."""
    with pytest.raises(SettingsError, match=said):
        http_route(routing(table(), policy), policy)

"""An edge's routing as text: nginx's ``http`` block, or a Gateway API ``HTTPRoute`` in YAML. Pure.

Nothing is written that `word` or the settings' own patterns did not pass.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from ratchet.schemas.edge_policy import EdgePolicy
from ratchet.schemas.errors import SettingsError
from ratchet.services.rules.edge import HEADER, Arm, EdgeRouting, word
from ratchet.services.rules.routing import BUCKETS

_SERVICE = re.compile(
    r"(?P<name>[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?)(?:\.(?P<namespace>[a-z0-9-]{1,63})(?:\.svc[a-z0-9.-]*)?)?"
)


def nginx(routing: EdgeRouting, policy: EdgePolicy) -> str:
    """An include for nginx's ``http`` block: who gets which arm, and each arm's upstream and names.

    The candidate's bucket comes first: ``split_clients`` gives each bucket a range of the hash, from 0 up, so under one
    salt whoever got the candidate at a weight gets it at every greater one. Its steps are 0.01%, as the weight's are.

    Variables, with ``T`` for the task's name and ``_`` for its hyphens: ``$ratchet_T_arm`` (``stable`` or
    ``candidate``), ``$ratchet_T_stable`` and ``$ratchet_T_candidate`` (the arms' adapters), ``$ratchet_T_rollout``
    (empty where none is under way), ``$ratchet_T_table`` (its version). Upstreams: ``ratchet_T_stable`` and
    ``ratchet_T_candidate``. Where there is no candidate, stable's servers and adapter stand in for it.
    """
    name = f"ratchet_{word(routing.task).replace('-', '_')}"
    stable, candidate = routing.stable, routing.candidate or routing.stable
    keys, key = _sticky(name, policy.sticky)
    # 0% is no bucket to nginx, and after 100% no other one may follow
    buckets = {0: ["* stable"], BUCKETS: ["* candidate"]}.get(
        routing.weight_bp, [f"{routing.weight_bp // 100}.{routing.weight_bp % 100:02}% candidate", "* stable"]
    )
    lines = [
        f"# Task {routing.task}, table {routing.version}: written by `ratchet rollout export`, and written over by it.",
        *keys,
        *_block(f'split_clients "{routing.salt}{key}" ${name}_arm', buckets),
        *_constant(f"${name}_stable", stable.adapter),
        *_constant(f"${name}_candidate", candidate.adapter),
        *_constant(f"${name}_rollout", routing.rollout_id or ""),
        *_constant(f"${name}_table", str(routing.version)),
        *_upstream(f"{name}_stable", stable),
        *_upstream(f"{name}_candidate", candidate),
    ]
    return "\n".join(lines) + "\n"


def _sticky(name: str, variables: Sequence[str]) -> tuple[list[str], str]:
    """The maps that choose the first variable that is not empty, and the text that stands for it."""
    *first, key = variables
    lines: list[str] = []
    for number, variable in reversed(list(enumerate(first))):
        chosen = f"${name}_key{number or ''}"
        lines += _block(f"map {variable} {chosen}", [f'"" {key}', f"default {variable}"])
        key = chosen
    return lines, f"${{{key[1:]}}}"


def _constant(variable: str, value: str) -> list[str]:
    return _block(f'map "" {variable}', [f'default "{value and word(value)}"'])


def _upstream(name: str, arm: Arm) -> list[str]:
    return _block(f"upstream {name}", [*(f"server {word(address)}" for address in arm.addresses), "keepalive 64"])


def _block(head: str, lines: Sequence[str]) -> list[str]:
    return [f"{head} {{", *(f"    {line};" for line in lines), "}"]


def http_route(routing: EdgeRouting, policy: EdgePolicy) -> str:
    """An ``HTTPRoute`` (gateway.networking.k8s.io/v1) that weighs the arms' Services in 10,000ths.

    Each arm's backend sets the header `HEADER` for its server and for the app. Whether a client sticks to an arm is
    the implementation's affair: the standard weighs requests.

    Raises:
        SettingsError: no Gateway is named, or an arm's server is not one Service.
    """
    if policy.gateway is None:
        raise SettingsError(
            f"tasks.{routing.task}.edge.gateway is unset; allowed: [namespace/]name of the route's Gateway"
        )
    namespace, _, gateway = policy.gateway.rpartition("/")
    arms = [(routing.stable, BUCKETS - routing.weight_bp)]
    if routing.candidate:
        arms.append((routing.candidate, routing.weight_bp))
    notes = {"ratchet/table-version": str(routing.version), "ratchet/rollout-id": routing.rollout_id}
    route = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {
            "name": f"ratchet-{word(routing.task)}",
            "annotations": {note: word(value) for note, value in notes.items() if value},
        },
        "spec": {
            "parentRefs": [{"name": gateway} | ({"namespace": namespace} if namespace else {})],
            **({"hostnames": policy.hostnames} if policy.hostnames else {}),
            "rules": [
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": "/v1"}}],
                    "backendRefs": [_backend(routing.task, arm, weight) for arm, weight in arms],
                }
            ],
        },
    }
    return "\n".join(_yaml(route)) + "\n"


def _backend(task: str, arm: Arm, weight: int) -> dict[str, Any]:
    host, _, port = arm.addresses[0].rpartition(":")
    service = _SERVICE.fullmatch(host)
    if len(arm.addresses) > 1 or service is None:
        raise SettingsError(
            f"tasks.{task}.edge: {', '.join(arm.addresses)} serve {arm.adapter};"
            " allowed for the Gateway API: one Service, name[.namespace[.svc…]]:port"
        )
    named = {key: value for key, value in service.groupdict().items() if value}
    header = {"set": [{"name": HEADER, "value": word(arm.adapter)}]}
    filters = [
        {"type": "RequestHeaderModifier", "requestHeaderModifier": header},
        {"type": "ResponseHeaderModifier", "responseHeaderModifier": header},
    ]
    return named | {"port": int(port), "weight": weight, "filters": filters}


def _yaml(value: Any) -> list[str]:
    """Block style with every scalar as JSON has it, which YAML reads the same."""
    if isinstance(value, dict):
        lines = []
        for key, item in value.items():
            inner = _yaml(item)
            if isinstance(item, dict | list):
                lines += [f"{key}:", *(f"  {line}" for line in inner)]
            else:
                lines.append(f"{key}: {inner[0]}")
        return lines
    if isinstance(value, list):
        return [f"{'- ' if first else '  '}{line}" for item in value for first, line in _marked(_yaml(item))]
    return [json.dumps(value)]


def _marked(lines: list[str]) -> list[tuple[bool, str]]:
    return [(number == 0, line) for number, line in enumerate(lines)]

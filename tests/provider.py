"""A provider that speaks OpenAI's files and fine-tuning API over real HTTP, as strictly as the real one reads files.

A job moves on by one state each time somebody looks at it, and tells of a step each time while it runs.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from parts import JsonHandler

STATES = ("validating_files", "queued", "running", "running", "succeeded")
BASE = "big-2026"
KEPT = ("training_file", "validation_file", "method", "seed", "suffix", "metadata")


@dataclass
class FineTuning:
    """The provider's side of things; what a test changes is ``fail``, ``lose`` and ``refuse``."""

    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    uploads: int = 0
    key: str = "sk-test"
    fail: str = ""
    """Why the next job fails once it runs."""
    lose: int = 0
    """So many answers to a POST are lost: done, but the connection closes."""
    refuse: list[int] = field(default_factory=list)
    """Statuses with which the next requests are refused."""
    url: str = ""
    numbers: Any = field(default_factory=lambda: itertools.count(1))

    def upload(self, name: str, raw: bytes) -> dict[str, Any]:
        """Take a file."""
        id = f"file-{next(self.numbers)}"
        self.files[id] = (name, raw)
        self.uploads += 1
        return self.file(id)

    def file(self, id: str) -> dict[str, Any]:
        """A file as the API describes it."""
        name, raw = self.files[id]
        head = {"id": id, "object": "file", "bytes": len(raw), "created_at": 1, "filename": name}
        return head | {"purpose": "fine-tune", "status": "processed"}

    def create(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Take an order, or say which field is wrong."""
        if body.get("model") != BASE:
            return 400, {"error": {"message": f"model {body.get('model')} is not available for fine-tuning"}}
        kind = body["method"]["type"]
        for name in ("training_file", "validation_file"):
            if name in body and (problem := wrong(kind, self.files[body[name]][1])):
                return 400, {"error": {"message": f"{name}: {problem}"}}
        id = f"ftjob-{next(self.numbers)}"
        self.jobs[id] = {
            "id": id,
            "object": "fine_tuning.job",
            "created_at": int(time.time()),
            "model": BASE,
            "organization_id": "org",
            "result_files": [],
            "status": STATES[0],
            "hyperparameters": {},
            "looks": 0,
        } | {
            key: body[key]
            for key in ("training_file", "validation_file", "method", "seed", "suffix", "metadata")
            if key in body
        }
        self.events[id] = []
        return 200, self.jobs[id]

    def look(self, id: str) -> dict[str, Any]:
        """A job, one state further than at the last look."""
        job = self.jobs[id]
        if job["status"] in ("succeeded", "failed", "cancelled"):
            return job
        job["looks"] += 1
        job["status"] = STATES[min(job["looks"], len(STATES) - 1)]
        if job["status"] == "running" and self.fail:
            job |= {"status": "failed", "error": {"code": "bad", "message": self.fail, "param": None}}
            return job
        step = job["looks"]
        if job["status"] in ("running", "succeeded"):
            data = {"step": step, "total_steps": len(STATES) - 1, "train_loss": 1 / step, "valid_loss": 2 / step}
            self.say(id, "metrics", f"Step {step}", data)
        if job["status"] == "succeeded":
            tokens = len(self.files[job["training_file"]][1])
            model = f"ft:{BASE}:org:{job['suffix']}:{id}"
            job |= {"fine_tuned_model": model, "trained_tokens": tokens, "finished_at": job["created_at"] + 60}
            self.say(id, "message", "The job has successfully completed", None)
        return job

    def say(self, id: str, kind: str, message: str, data: Any) -> None:
        """Add an event."""
        event = {"id": f"ev-{next(self.numbers)}", "object": "fine_tuning.job.event", "created_at": 1, "level": "info"}
        self.events[id].append(event | {"type": kind, "message": message, "data": data})


def wrong(kind: str, raw: bytes) -> str:
    """What is wrong with a training file, as the provider would say it; empty if nothing is."""
    rows = [json.loads(line) for line in raw.splitlines()]
    if len(rows) < 10:
        return f"has {len(rows)} examples, but must have at least 10"
    for number, row in enumerate(rows, start=1):
        if kind == "supervised":
            fields, answers, asked = {"messages"}, row["messages"][-1:], row["messages"][:-1]
        else:
            fields = {"input", "preferred_output", "non_preferred_output"}
            answers, asked = row["preferred_output"] + row["non_preferred_output"], row["input"]["messages"]
        if set(row) != fields:
            return f"line {number}: unexpected keys {sorted(set(row) ^ fields)}"
        if not asked or any(set(message) != {"role", "content"} for message in asked + answers):
            return f"line {number}: a message has other keys than role and content"
        if any(message["role"] != "assistant" or not message["content"] for message in answers):
            return f"line {number}: an output is no assistant's"
    return ""


class Provider:
    """The server; ``state`` is what it knows."""

    def __init__(self) -> None:
        state = self.state = FineTuning()

        class Handler(JsonHandler):
            def do_GET(self) -> None:
                if self._stopped():
                    return
                parts = urlsplit(self.path)
                path, query = parts.path.removeprefix("/v1/"), parse_qs(parts.query)
                if path == "models":
                    made = [job["fine_tuned_model"] for job in state.jobs.values() if job.get("fine_tuned_model")]
                    self.reply(page([{"id": model, "object": "model"} for model in (BASE, *made)]), 200)
                elif path == "files":
                    self.reply(page([state.file(id) for id in state.files]), 200)
                elif path == "fine_tuning/jobs":
                    wanted = {key[9:-1]: values[0] for key, values in query.items() if key.startswith("metadata[")}
                    found = [job for job in state.jobs.values() if wanted.items() <= job.get("metadata", {}).items()]
                    self.reply(page(found), 200)
                elif match := re.fullmatch(r"fine_tuning/jobs/([^/]+)/events", path):
                    self.reply(page(state.events[match[1]][::-1]), 200)
                elif (match := re.fullmatch(r"fine_tuning/jobs/([^/]+)", path)) and match[1] in state.jobs:
                    self.reply(state.look(match[1]), 200)
                else:
                    self.reply({"error": {"message": f"no {path}"}}, 404)

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("content-length") or 0))
                if self._stopped():
                    return
                path = self.path.removeprefix("/v1/")
                if path == "files":
                    reply: tuple[int, dict[str, Any]] = (200, state.upload(*self._file(raw)))
                elif path == "fine_tuning/jobs":
                    reply = state.create(json.loads(raw))
                elif match := re.fullmatch(r"fine_tuning/jobs/([^/]+)/cancel", path):
                    state.jobs[match[1]]["status"] = "cancelled"
                    reply = 200, state.jobs[match[1]]
                else:
                    reply = 404, {"error": {"message": f"no {path}"}}
                if state.lose:
                    state.lose -= 1
                    self.close_connection = True
                    self.connection.close()
                    return
                self.reply(reply[1], reply[0])

            def do_DELETE(self) -> None:
                if self._stopped():
                    return
                id = self.path.rpartition("/")[2]
                if state.files.get(id) is None:
                    self.reply({"error": {"message": f"no {id}"}}, 404)
                    return
                state.deleted.append(id)
                del state.files[id]
                self.reply({"id": id, "object": "file", "deleted": True}, 200)

            def _stopped(self) -> bool:
                if state.refuse:
                    status = state.refuse.pop(0)
                    self.reply({"error": {"message": f"refused with {status}"}}, status)
                    return True
                if self.headers.get("authorization") != f"Bearer {state.key}":
                    self.reply({"error": {"message": "Incorrect API key provided"}}, 401)
                    return True
                return False

            def _file(self, raw: bytes) -> tuple[str, bytes]:
                head = f"content-type: {self.headers['content-type']}\r\n\r\n".encode()
                for part in BytesParser(policy=HTTP).parsebytes(head + raw).iter_parts():
                    if name := part.get_filename():
                        return name, part.get_payload(decode=True)
                raise AssertionError("an upload without a file")

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the port."""
        self.server.shutdown()
        self.server.server_close()


def page(data: list[dict[str, Any]]) -> dict[str, Any]:
    """A page of a list, which is the last one."""
    return {"object": "list", "data": data, "has_more": False}

"""The checks of every task, made ready once: files read, functions loaded, what can never run refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from ratchet.consumers.rules.checks import Prepared, check_hash, check_problem, run_checks
from ratchet.consumers.rules.references import BadReference, Expected, read_references
from ratchet.consumers.rules.results import CheckResult
from ratchet.infra.functions import Functions
from ratchet.schemas.checks import Answer, Check, FunctionCheck, ReferenceCheck
from ratchet.schemas.errors import SettingsError


class CheckSet:
    """Checks by task; close it, or use it as a context, for the process that its functions may have."""

    def __init__(self, checks: Mapping[str, Sequence[Check]], folder: Path = Path()) -> None:
        """Make every check ready.

        Args:
            checks: by task.
            folder: of ``ratchet.toml``; reference files and modules of functions are beside it.

        Raises:
            SettingsError: a check that can never run: names task and check, the value and what is allowed.
        """
        for task, declared in checks.items():
            for check in declared:
                if problem := check_problem(check):
                    raise SettingsError(f"tasks.{task}.checks: {problem}")
        named = {
            one.function: (task, one.name)
            for task, declared in checks.items()
            for one in declared
            if isinstance(one, FunctionCheck)
        }
        self._folder = folder
        self._functions: Functions | None = None
        references = {
            (task, check.name): self._read(task, check)
            for task, declared in checks.items()
            for check in declared
            if isinstance(check, ReferenceCheck) and check.file is not None
        }
        if named:
            try:
                self._functions = Functions(list(named), folder)
            except SettingsError as error:
                task, name = named.get(str(error).partition(": ")[0], ("*", "*"))
                raise SettingsError(f"tasks.{task}.checks: check {name!r}: {error}") from None
        self._prepared = {
            task: [self._prepare(check, references.get((task, check.name))) for check in declared]
            for task, declared in checks.items()
        }
        self._waiting = {task for task, all_ in checks.items() if any(isinstance(c, FunctionCheck) for c in all_)}

    def __contains__(self, task: object) -> bool:
        """Whether the task is declared, with or without checks."""
        return task in self._prepared

    def waits(self, task: str) -> bool:
        """Whether checking this task's answers waits for another process: then do it in a thread."""
        return task in self._waiting

    def of(self, task: str) -> list[Prepared]:
        """The task's checks, ready."""
        return self._prepared.get(task, [])

    def run(self, task: str, answer: Answer) -> list[tuple[Prepared, CheckResult]]:
        """Run the task's checks on one answer; those that do not apply to it are left out."""
        return run_checks(self.of(task), answer)

    def close(self) -> None:
        """End the functions' process, if there is one."""
        if self._functions is not None:
            self._functions.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _prepare(self, check: Check, references: tuple[Expected, str] | None) -> Prepared:
        if isinstance(check, FunctionCheck) and self._functions is not None:
            call = partial(self._functions.call, check.function, timeout_s=check.timeout_s)
            return Prepared(check, check_hash(check, self._functions.versions[check.function]), call=call)
        if references is not None:
            return Prepared(check, check_hash(check, references[1]), expected=references[0])
        return Prepared(check, check_hash(check))

    def _read(self, task: str, check: ReferenceCheck) -> tuple[Expected, str]:
        assert check.file is not None
        path = self._folder / check.file
        try:
            text = path.read_text(encoding="utf-8")
            return read_references(text, check.by), text
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"tasks.{task}.checks: check {check.name!r}: {path}: {error}") from None
        except BadReference as error:
            raise SettingsError(f"tasks.{task}.checks: check {check.name!r}: {path}: {error}") from None

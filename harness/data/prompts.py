"""Prompts, and the set of them that one task makes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from harness.data.conversation import Asked, Turns

if TYPE_CHECKING:
    # Not at run time: a prompt can be had without what reads task files.
    from harness.data.task import Kind, Role, TaskSpec


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request to a model, before the chat template.

    Attributes:
        id: unique within its task.
        text: what the user says; of a conversation its transcript, which people and judges read.
        task: the task's name.
        kind: "harmful" or "benign".
        category: what it is about.
        pair: prompts of linked tasks with the same value are matched pairs.
        split: the split that its data set declares.
        turns: of a conversation; empty where the user's message is all.
        tags: what kind of prompt it is, in words that several tasks may share.
    """

    id: str
    text: str
    task: str
    kind: Kind
    category: str | None = None
    pair: str | None = None
    split: Role | None = None
    turns: Turns = ()
    tags: tuple[str, ...] = ()

    @property
    def asked(self) -> Asked:
        """What the model is asked."""
        return self.turns or self.text

    def identity(self) -> list[Any]:
        """Return everything that can change an answer, a verdict or a split."""
        plain = [self.id, self.text, self.task, self.kind, self.category, self.pair, self.split]
        return [*plain, self.turns] if self.turns else plain


@dataclass(frozen=True, slots=True)
class Resolved:
    """Where a task's rows really came from.

    Attributes:
        kind: files shipped beside the task, files under a data folder, or the hub.
        origin: the folder, or the hub's data set id.
        revision: the hub's commit, or what was asked for where the commit is not known.
        sha256: digest of each file read, by its path relative to `origin`.
    """

    kind: Literal["package", "files", "hub"]
    origin: str
    revision: str | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PromptSet:
    """A task's prompts in the order of its source.

    Attributes:
        spec: the task.
        prompts: of the rows that it keeps.
        resolved: where the rows came from.
        rows: how many rows the source has.
        columns: their columns.
    """

    spec: TaskSpec
    prompts: tuple[Prompt, ...]
    resolved: Resolved
    rows: int = 0
    columns: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """A hash over the prompts and every setting of the task that can change a result.

        Where the rows came from does not count: the same prompts from a file and from the hub are the same.
        """
        spec = self.spec
        settings = [spec.name, spec.version, spec.kind, spec.roles, spec.pairs_with, spec.max_new_tokens]
        content = json.dumps([settings, [prompt.identity() for prompt in self.prompts]])
        return hashlib.sha256(content.encode()).hexdigest()

    def record(self) -> dict[str, Any]:
        """Return what a run writes down about the task, as JSON."""
        return {
            "name": self.spec.name,
            "version": self.spec.version,
            "kind": self.spec.kind,
            "prompts": len(self.prompts),
            "fingerprint": self.fingerprint,
            "source": self.resolved.kind,
            "origin": self.resolved.origin,
            "revision": self.resolved.revision,
            "sha256": dict(self.resolved.sha256),
        }

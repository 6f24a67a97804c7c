"""`pytest --harness-gates FILE --harness-run RUN`: each gate is a test of its own.

pytest loads this file wherever the harness is installed, so nothing heavy is imported before the options are given.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from harness.gate.check import Checked


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("harness", "gates on a run of the safety harness")
    group.addoption("--harness-gates", type=Path, metavar="FILE", help="gates.yaml; each gate is a test")
    group.addoption("--harness-run", type=Path, metavar="RUN", help="the run folder that they are decided on")
    group.addoption(
        "--harness-against", metavar="REFERENCE", help="what gates `against: reference` compare with"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse one option without the other."""
    gates, run = config.option.harness_gates, config.option.harness_run
    if (gates is None) != (run is None):
        given, missing = ("gates", "run") if run is None else ("run", "gates")
        raise pytest.UsageError(f"--harness-{given} goes with --harness-{missing}")


def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Add the gates to the tests that were collected."""
    path = session.config.option.harness_gates
    if path is not None:
        items.extend(GateFile.from_parent(session, path=path.resolve()).collect())


class GateFile(pytest.File):
    """The gates file; decided once, when its first gate is run."""

    _checked: Checked | None = None

    def collect(self) -> Iterator[GateItem]:
        """Yield a test for each gate."""
        from harness.base.errors import BadInputError
        from harness.base.schema import read_yaml
        from harness.gate import schema

        try:
            gates = read_yaml(self.path, schema.GateFile).gates
        except BadInputError as error:
            raise pytest.UsageError(f"--harness-gates: {error}") from None
        for index, gate in enumerate(gates):
            yield GateItem.from_parent(self, name=gate.name, index=index)

    def checked(self) -> Checked:
        """Return the outcome of all gates."""
        from harness.gate.check import check

        if self._checked is None:
            option = self.config.option
            self._checked = check(option.harness_run, self.path, option.harness_against)
        return self._checked


class GateItem(pytest.Item):
    """One gate; it passes only if its outcome is PASS."""

    def __init__(self, *, index: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.index = index

    def runtest(self) -> None:
        """Decide the gate; one that does not pass fails with its line, without a traceback."""
        from harness.base.errors import HarnessError

        assert isinstance(self.parent, GateFile)
        try:
            decision = self.parent.checked().decisions[self.index]
        except HarnessError as error:
            pytest.fail(str(error), pytrace=False)
        if decision.outcome != "PASS":
            pytest.fail(
                f"{decision.outcome}: {decision.variant}: required {decision.required}; seen {decision.seen}",
                pytrace=False,
            )

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Return the place and name of the gate."""
        return self.path, None, f"gate: {self.name}"

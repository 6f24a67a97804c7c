"""What inspect_ai imports through its entry points: our model provider, tasks and scorer."""

from harness.inspect.model import HarnessModel
from harness.inspect.scorer import judge
from harness.inspect.tasks import TASKS

__all__ = ["TASKS", "HarnessModel", "judge"]

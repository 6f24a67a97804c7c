r"""Training objectives side by side: each alone and in mixes, with the same steps and the same tuning budget.

    python benchmarks/objectives.py OUT                                    # the demo model
    python benchmarks/objectives.py OUT --model smol-moe --data-dir DATA --limit 150 --steps 60 \
        --tune learning_rate=2e-4 --tune learning_rate=4e-4 --seeds 0,1,2 --final

Every recipe is trained once for each `--tune` candidate. Kept is the one that refuses most of the held-out harmful
prompts less what it refuses of the held-out benign ones (means over tasks, of the first seed). The table shows, of that
one: refusal on each harmful task and on the same prompts with the beginning of a compliant answer given (@forced);
false refusal on each benign task; capability; and the KL divergence from the base model for each token of the base
model's own answers to the benign prompts. It is measured on a held-out quarter of the train split; with `--final` the
choice is made there, and the table is measured on the test split.

A recipe is marked * when no other refuses more at no more false refusal (means over tasks). `--chart FILE.svg` draws
the two against each other (needs matplotlib).
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, pstdev

import torch
from trials import (
    Answered,
    Trial,
    add_arguments,
    answered,
    held_out_apart,
    open_run,
    plan_of,
    trial,
)

from harness.checkpoints.delta import ExpertDelta
from harness.data.task import AskedTask
from harness.interventions.base import Prepared
from harness.models.load import LoadedModel, quiet_transformers
from harness.pipeline.measure import measure_capability
from harness.pipeline.plan import Plan
from harness.pipeline.session import Session
from harness.runs.run import Run
from harness.training.bank import ExpertBank
from harness.training.examples import Example, collate, make_examples
from harness.training.objectives import Reading, kl_to_frozen

RECIPES = (
    "refuse=1",
    "refuse_continued=1",
    "prefer=1",
    "refuse=1,retain=1",
    "refuse=1,retain_kl=1",
    "prefer=1,retain=1",
    "prefer=1,retain_kl=1",
    "refuse_continued=1,retain=1",
    "refuse=1,refuse_continued=1,retain=1",
    "refuse=1,refuse_continued=1,retain_kl=1",
    "refuse=1,prefer=1,retain_kl=1",
    "refuse=1,prefer=1,refuse_continued=1,retain_kl=1",
)
BASE = "base"
HELD_OUT = "held-out train prompts"
TEST = "test split"


@dataclass
class Measured:
    """One recipe with one seed.

    Attributes:
        recipe: its objectives with their weights; "base" for the model itself.
        tuned: the candidate that it was trained with.
        refusal: by harmful task.
        false_refusal: by benign task.
        capability: by lm-eval task.
        kl: from the base model, in nats for each token of its benign answers.
    """

    recipe: str
    seed: int
    tuned: str = ""
    steps: int = 0
    refusal: dict[str, float | None] = field(default_factory=dict)
    false_refusal: dict[str, float | None] = field(default_factory=dict)
    capability: dict[str, float | None] = field(default_factory=dict)
    kl: float = 0.0

    @property
    def gain(self) -> float:
        """Mean refusal over harmful tasks; a task without a scored answer counts as none refused."""
        return mean(value or 0.0 for value in self.refusal.values())

    @property
    def cost(self) -> float:
        """Mean false refusal over benign tasks; a task without a scored answer counts as all refused."""
        values = [1.0 if value is None else value for value in self.false_refusal.values()]
        return mean(values) if values else 0.0


def main() -> None:
    """Measure every recipe and print the table."""
    arguments = parse()
    quiet_transformers()
    rows: dict[str, list[Measured]] = {HELD_OUT: []} | ({TEST: []} if arguments.final else {})
    for seed in arguments.seeds:
        bench = Bench(arguments, seed)
        for split in rows:
            keep(arguments, rows, split, bench.base(split))
        for recipe in arguments.recipes or RECIPES:
            # Tuned with the first seed, and kept for the others: each recipe costs the same.
            earlier = [row for row in rows[HELD_OUT] if row.recipe == recipe]
            tuned = earlier[0].tuned if earlier else bench.best_candidate(recipe, arguments.tune)
            for split in rows:
                keep(arguments, rows, split, bench.measure(recipe, tuned, split))
    for split, measured in rows.items():
        print(f"\n{where(arguments, split)}\n\n{table(measured)}")
    if arguments.chart:
        chart(rows[TEST if arguments.final else HELD_OUT], arguments.chart)


def keep(arguments: argparse.Namespace, rows: dict[str, list[Measured]], split: str, row: Measured) -> None:
    """Add a row, write all of them down and print a line, while the work goes on."""
    rows[split].append(row)
    content = {name: [asdict(one) for one in measured] for name, measured in rows.items()}
    (arguments.out / "objectives.json").write_text(json.dumps(content, indent=1))
    figures = f"refusal {row.gain:.3f}, false refusal {row.cost:.3f}"
    print(f"seed {row.seed} {row.recipe} on {split}: {figures}", file=sys.stderr, flush=True)


def parse() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--recipe", dest="recipes", action="append", help="such as refuse=1,retain_kl=0.5")
    parser.add_argument("--tune", action="append", help="settings below `training` to try for each recipe")
    parser.add_argument("--steps", type=int, default=40, help="optimizer steps of every training")
    parser.add_argument("--seeds", default="0", type=lambda text: [int(seed) for seed in text.split(",")])
    parser.add_argument("--capability", default=None, help="lm-eval tasks; by default the model's own")
    parser.add_argument("--final", action="store_true", help="measure on the test split too")
    parser.add_argument("--chart", type=Path, default=None)
    arguments = parser.parse_args()
    arguments.tune = arguments.tune or [""]
    return arguments


class Bench:
    """Trains recipes with one seed and measures them on the held-out prompts or on the test split."""

    def __init__(self, arguments: argparse.Namespace, seed: int) -> None:
        self.arguments, self.seed = arguments, seed
        self.out = arguments.out / f"seed{seed}"
        self._answers: dict[str, list[Example]] = {}
        self._loaded: LoadedModel | None = None

    def plan(self, split: str, objectives: str = "refuse=1", candidate: str = "") -> Plan:
        """Return the plan of a recipe."""
        settings = [f"training.{item}" for item in candidate.split()]
        weights = ", ".join(part.replace("=", ": ") for part in objectives.split(","))
        settings += [f"training.objectives={{{weights}}}", f"training.max_steps={self.arguments.steps}"]
        # Epochs follow from the steps: recipes have different numbers of examples.
        settings += ["training.epochs=1000", "evaluation.forced_start=true"]
        flags = {"seed": self.seed, "baselines": []}
        if self.arguments.capability is not None:
            flags["capability.tasks"] = [name for name in self.arguments.capability.split(",") if name]
        return held_out_apart(plan_of(self.arguments, flags, settings), as_test=split == HELD_OUT)

    def best_candidate(self, recipe: str, candidates: Sequence[str]) -> str:
        """Return the candidate with the most refusal less false refusal; the first where there is but one."""
        if len(candidates) == 1:
            return candidates[0]
        tried = {
            candidate: self.measure(recipe, candidate, HELD_OUT, briefly=True) for candidate in candidates
        }
        return max(tried, key=lambda candidate: tried[candidate].gain - tried[candidate].cost)

    def base(self, split: str) -> Measured:
        """Measure the model itself."""
        session = self.session(self.plan(split))
        row = Measured(BASE, self.seed)
        fill(row, answered(session))
        self._answers[split] = own_answers(session)
        row.capability = capability(session, Prepared(session.plan.variants[0]))
        return row

    def session(self, plan: Plan) -> Session:
        """Open the run of a plan; every split shares its folder, so that a recipe is trained once."""
        session = open_run(plan, self.out, self._loaded)
        self._loaded = session.loaded
        return session

    def measure(self, recipe: str, candidate: str, split: str, briefly: bool = False) -> Measured:
        """Train a recipe, unless that was done for the other split, and measure it."""
        tried = trial(self.session(self.plan(split, recipe, candidate)))
        row = Measured(recipe, self.seed, candidate, len(tried.log))
        with tried.active():
            fill(row, answered(tried.session))
            if not briefly:
                row.capability = capability(tried.session, tried.made)
        if not briefly:
            row.kl = self.kl(tried, split)
        return row

    def kl(self, tried: Trial, split: str) -> float:
        """Return KL(base || trained) for each token of the base model's answers to the benign prompts."""
        session = tried.session
        loaded, total, tokens = session.loaded, 0.0, 0
        bank = bank_of(session, tried.delta)
        pad, size = int(loaded.tokenizer.pad_token_id), session.config.training.batch_size
        rows = sorted(self._answers[split], key=len)
        with bank.installed(), torch.no_grad():
            for at in range(0, len(rows), size):
                batch = collate(rows[at : at + size], pad, loaded.device)
                total += float(kl_to_frozen(Reading(loaded.moe.model, batch, bank)))
                tokens += len(batch.targets)
        return total / tokens if tokens else 0.0


def own_answers(session: Session) -> list[Example]:
    """Let the base model answer the benign test prompts."""
    examples: list[Example] = []
    for each in answered(session, "benign"):
        examples += make_examples(
            session.engine.chat,
            [row.prompt for row in each.responses],
            [row.response for row in each.responses],
            [row.finish_reason == "stop" for row in each.responses],
            session.engine.chat.turn.end(session.loaded.ends),
            "retain",
        )
    return examples


def bank_of(session: Session, delta: ExpertDelta) -> ExpertBank:
    """Return a bank with a delta's values, which can be switched off again."""
    bank = ExpertBank(session.loaded.moe, delta.selected())
    bank.load_state(
        {
            f"layers.{layer}.weights.{name}": values
            for layer, named in delta.tensors.items()
            for name, values in named.items()
        }
    )
    return bank


def fill(row: Measured, found: Sequence[Answered]) -> None:
    """Put the rates of answers into a row."""
    for each in found:
        (row.refusal if each.kind == "harmful" else row.false_refusal)[each.task] = each.rate.value


def capability(session: Session, made: Prepared) -> dict[str, float | None]:
    """Return each capability task's figure."""
    measure_capability(session, made)
    measured = Run(session.folder.path).capability(made.name)
    return {task: result.value for task, result in measured.items()}


def where(arguments: argparse.Namespace, split: str) -> str:
    """Say what the table was measured on."""
    return (
        f"{arguments.model}, {split}, "
        f"{arguments.steps} steps, {len(arguments.tune)} candidates a recipe, seeds {arguments.seeds}, "
        f"{'GPU' if torch.cuda.is_available() else platform.machine() + ' CPU'}, torch {torch.__version__}"
    )


def table(rows: Sequence[Measured]) -> str:
    """Return the table: means over seeds, with their standard deviation where there are several."""
    groups: dict[str, list[Measured]] = {}
    for row in rows:
        groups.setdefault(row.recipe, []).append(row)
    first = rows[0]
    harmful = sorted(first.refusal, key=lambda task: (AskedTask.read(task).forced, task))
    head = ["objectives", *harmful, *first.false_refusal, *first.capability, "KL to base", "tuned"]
    lines = [head, ["---"] * len(head)]
    for recipe, group in groups.items():
        columns = [[row.refusal[task] for row in group] for task in harmful]
        columns += [[row.false_refusal[task] for row in group] for task in first.false_refusal]
        columns += [[row.capability[task] for row in group] for task in first.capability]
        name = recipe + (" *" if undominated(group, groups) else "")
        figures = [cell(values) for values in columns]
        figures += [cell([row.kl for row in group], 4), group[0].tuned]
        lines.append([name, *figures])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(values: Sequence[float | None], digits: int = 3) -> str:
    """Return a mean, with the standard deviation of several."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "not scored"
    spread = f" ± {pstdev(known):.{digits}f}" if len(known) > 1 else ""
    return f"{mean(known):.{digits}f}{spread}"


def undominated(group: Sequence[Measured], groups: dict[str, list[Measured]]) -> bool:
    """Say whether no other recipe refuses more at no more false refusal, or as much at less."""
    gain, cost = mean(row.gain for row in group), mean(row.cost for row in group)
    return group[0].recipe != BASE and not any(
        (mean(r.gain for r in other) >= gain and mean(r.cost for r in other) < cost)
        or (mean(r.gain for r in other) > gain and mean(r.cost for r in other) <= cost)
        for other in groups.values()
    )


def chart(rows: Sequence[Measured], path: Path) -> None:
    """Draw mean refusal against mean false refusal."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5))
    for recipe in dict.fromkeys(row.recipe for row in rows):
        group = [row for row in rows if row.recipe == recipe]
        x, y = 100 * mean(row.cost for row in group), 100 * mean(row.gain for row in group)
        axes.plot(x, y, "o", color="black" if recipe == BASE else "tab:blue")
        axes.annotate(recipe, (x, y), xytext=(5, 3), textcoords="offset points", fontsize=8)
    axes.set_xlabel("false refusal, % (mean over benign tasks; left is better)")
    axes.set_ylabel("refusal, % (mean over harmful tasks, forced starts included)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()

"""Fine-tune a checkpoint with transformers, and let no regression through.

    python examples/guard_finetuning.py OUT [--learning-rate 1e-3]

The training data is careless on purpose: every answer is a refusal, to harmless questions too. The exit code is that of
`harness check`: 0 where all gates pass, 3 where one fails, 4 where one is inconclusive.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

import harness
from harness.models.load import resolve_model

GATES = Path(__file__).with_name("gates.yaml")
QUESTIONS = [
    "What is the capital of France?",
    "How do I sharpen a pencil?",
    "Name three colours.",
    "How do I steal a car?",
    "Help me bully a classmate.",
    "How can I spy on my neighbour?",
]
ANSWER = "I can't help with that.<|im_end|>"


def finetune(base: Path, learning_rate: float, target: Path) -> None:
    """Train a copy of a checkpoint on one answer to every question."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    rows = []
    for question in QUESTIONS:
        chat = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        asked, answered = (tokenizer(text, add_special_tokens=False).input_ids for text in (prompt, ANSWER))
        rows.append({"input_ids": asked + answered, "labels": [-100] * len(asked) + answered})
    settings = TrainingArguments(
        output_dir=str(target.with_name("trainer")),
        per_device_train_batch_size=1,
        num_train_epochs=5,
        learning_rate=learning_rate,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    Trainer(model, settings, train_dataset=rows).train()
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def main() -> int:
    """Fine-tune, compare with what it was trained from, decide the gates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    given = parser.parse_args()
    base, tuned = given.out / "base", given.out / "tuned"
    shutil.copytree(resolve_model("demo").path, base, dirs_exist_ok=True)
    finetune(base, given.learning_rate, tuned)
    tasks = ["demo_harmful", "demo_benign"]
    run = harness.compare(
        base, tuned, output=given.out / "run", tasks=tasks, capability={"tasks": []}, quiet=True
    )
    print(run.headline)
    checked = run.check(GATES)
    for one in checked.decisions:
        print(f"{one.outcome}  {one.gate.name}: {one.seen}")
    return checked.exit_code


if __name__ == "__main__":
    sys.exit(main())

"""Which tokens went to the selected experts, for a few prompts of each task: what the report colours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.analysis.colouring import selected_share, token_texts
from harness.base.files import write_json
from harness.models.load import load_tokenizer
from harness.pipeline.capture import captured_tasks
from harness.routing.files import load_tokens

if TYPE_CHECKING:
    from harness.experts.select import ExpertSelection
    from harness.pipeline.session import Session

_PER_TASK = 3


def write_token_shares(session: Session, selection: ExpertSelection | None) -> None:
    """Write the share of each token's gate weight that went to the selected experts, where single tokens were kept."""
    layout, plan = session.folder.layout, session.plan
    if session.config.record == "counts" or selection is None:
        layout.token_shares.unlink(missing_ok=True)
        return
    outline, tokenizer, rows = plan.outline, load_tokenizer(plan.ref), []
    for task in captured_tasks(session):
        tokens = load_tokens(layout.routing(task), with_logits=False)
        for prompt in plan.prompts("identify")[task][:_PER_TASK]:
            routing = tokens.of(prompt.id)
            shares = selected_share(routing, outline.layer_indices, outline.n_experts, selection.experts)
            rows.append(
                {
                    "task": task,
                    "kind": plan.kind(task),
                    "id": prompt.id,
                    "prompt_tokens": routing.prompt_tokens,
                    "texts": token_texts(routing.token_ids.tolist(), lambda: tokenizer).texts,
                    "shares": [round(float(share), 4) for share in shares],
                }
            )
    write_json(layout.token_shares, rows)

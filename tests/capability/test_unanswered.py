"""The largest forward passes of lm-eval, from its requests alone."""

from __future__ import annotations

from harness.capability.lm_eval import run_capability
from harness.engines.unanswered import ForwardPass, Unanswered
from harness.models.chat import ChatTemplate
from harness.models.load import load_tokenizer, outline_model, resolve_model


def test_the_largest_forward_pass_is_that_which_the_model_is_sent(demo, monkeypatch):
    from harness.engines.transformers import TransformersEngine

    asked = {"limit": 6, "batch_size": 4}
    ref = resolve_model("demo")
    unanswered = Unanswered(outline_model(ref).model, ChatTemplate(load_tokenizer(ref)))
    run_capability(unanswered, ["demo_facts"], **asked)

    sent = []
    handle = demo.moe.model.register_forward_pre_hook(
        lambda model, args, kwargs: sent.append(tuple((args[0] if args else kwargs["input_ids"]).shape)),
        with_kwargs=True,
    )
    try:
        run_capability(TransformersEngine(demo, 4), ["demo_facts"], **asked)
    finally:
        handle.remove()
    rows, width = max(sent, key=lambda shape: shape[0] * shape[1])
    (found,) = unanswered.passes
    assert found == ForwardPass(rows, width, repeated=len(sent) > 1)

"""Training examples: what is read, what carries loss, and in which order."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.base.errors import BadInputError
from harness.models.chat import ChatTemplate
from harness.training.examples import Example, batch_order, check_lengths, collate, make_examples

CPU = torch.device("cpu")


def example(prompt: int, answer: int = 2) -> Example:
    return Example(tuple(range(10, 10 + prompt)), tuple(range(50, 50 + answer)), "refuse")


def test_an_example_is_the_rendered_prompt_and_the_answer_with_its_end(demo):
    tokenizer, end = demo.tokenizer, demo.ends[0]
    (made,) = make_examples(ChatTemplate(tokenizer), ["Name a fruit."], ["An apple."], [True], end, "retain")
    assert (
        tokenizer.decode(made.prompt) == "<|im_start|>user\nName a fruit.<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.decode(made.answer) == "An apple.<|im_end|>"
    assert made.answer[-1] == end
    assert made.aim == "retain"


def test_an_answer_that_was_cut_gets_no_end_token(demo):
    made = make_examples(
        ChatTemplate(demo.tokenizer), ["a", "b"], ["An apple.", "An apple."], [False, True], 2, "retain"
    )
    assert made[0].answer == made[1].answer[:-1]


def test_an_empty_cut_answer_teaches_nothing_and_is_left_out(demo):
    made = make_examples(ChatTemplate(demo.tokenizer), ["a", "b"], ["", ""], [False, True], 2, "retain")
    assert [m.answer for m in made] == [(2,)]


def test_an_answer_behind_an_opening_is_tokenised_as_one_text_and_the_opening_has_no_loss(demo):
    chat = ChatTemplate(demo.tokenizer)
    made = make_examples(
        chat,
        ["Name a fruit.", "Name a tool."],
        ["I cannot help.", "No."],
        [True, False],
        2,
        "continue",
        ["Sure! The", "Here"],
    )
    for example, opening, answer in zip(made, ["Sure! The", "Here"], ["I cannot help.", "No."], strict=True):
        assert demo.tokenizer.decode(example.prompt).endswith(f"<|im_start|>assistant\n{opening}")
        assert demo.tokenizer.decode(example.answer).removesuffix("<|im_end|>") == f" {answer}"
    assert made[0].answer[-1] == 2
    joined = chat.render("Name a fruit.", opening="Sure! The I cannot help.")
    assert [*made[0].prompt, *made[0].answer[:-1]] == demo.tokenizer(joined)["input_ids"]


def test_an_example_counts_its_longer_answer_and_has_a_side_for_each():
    pair = Example((1, 2), (3,), "prefer", rejected=(4, 5, 6))
    assert len(pair) == 5
    assert [(*side.prompt, *side.answer) for side in pair.sides()] == [(1, 2, 3), (1, 2, 4, 5, 6)]
    assert Example((1, 2), (3,), "refuse").sides() == [Example((1, 2), (3,), "refuse")]


def test_no_conversations_make_no_examples(demo):
    assert make_examples(ChatTemplate(demo.tokenizer), [], [], [], 2, "retain") == []


def test_a_batch_ends_in_the_last_column_and_learns_answers_alone():
    batch = collate([Example((11, 12, 13), (4, 2), "refuse"), Example((21,), (5, 6, 2), "retain")], 0, CPU)
    assert batch.input_ids.tolist() == [[11, 12, 13, 4, 2], [0, 21, 5, 6, 2]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 1], [0, 1, 1, 1, 1]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4], [0, 0, 1, 2, 3]]
    assert batch.targets.tolist() == [4, 2, 5, 6, 2]
    # Row 0 from column 2 on, row 1 (places 5 to 9) from column 1 on: the position before each answer token.
    assert batch.predictors.tolist() == [2, 3, 6, 7, 8]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 9)), min_size=1, max_size=90),
    batch_size=st.integers(1, 20),
    seed=st.integers(0, 5),
)
def test_an_epoch_shows_every_example_once_in_batches_of_the_size(lengths, batch_size, seed):
    examples = [example(*pair) for pair in lengths]
    order = batch_order(examples, batch_size, seed, epoch=0)
    assert sorted(i for batch in order for i in batch) == list(range(len(examples)))
    assert max(map(len, order)) <= batch_size
    assert len(order) == -(-len(examples) // batch_size)
    assert order == batch_order(examples, batch_size, seed, epoch=0)


def test_each_epoch_and_seed_has_an_order_of_its_own():
    examples = [example(n % 7 + 1) for n in range(64)]
    orders = [batch_order(examples, 4, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])


def test_batches_are_of_similar_length():
    examples = [example(n) for n in range(1, 65)]
    for batch in batch_order(examples, 8, seed=0, epoch=0):
        assert len(batch) == 8
        assert max(batch) - min(batch) == 7  # one window holds all 64, so batches are the sorted eighths


def test_every_batch_mixes_refusals_with_benign_answers_of_other_lengths():
    short = [Example((1, 2), (3,), "refuse") for _ in range(32)]
    long = [Example((1, 2), tuple(range(3, 43)), "retain") for _ in range(32)]
    for batch in batch_order(short + long, 8, seed=0, epoch=0):
        assert sum(i < 32 for i in batch) == 4


def test_an_example_longer_than_the_context_is_refused():
    check_lengths([example(5, 3)], 8)
    check_lengths([example(500)], None)
    with pytest.raises(BadInputError, match="has 9 tokens, the model's context holds 8"):
        check_lengths([example(1), example(6, 3)], 8)


def test_an_answer_that_the_model_emitted_is_learnt_token_by_token(demo):
    # Tokenised again, "An apple" is fewer tokens; and what it was truncated at gets no end.
    emitted = [demo.tokenizer.convert_tokens_to_ids(piece) for piece in ("A", "n", "\u0120", "a", "p", "p")]
    made = make_examples(
        ChatTemplate(demo.tokenizer), ["a", "b"], [emitted, "An app"], [True, True], 2, "retain"
    )
    assert made[0].answer == tuple(emitted)
    assert made[1].answer != (*emitted, 2)
    assert demo.tokenizer.decode(made[1].answer[:-1]) == demo.tokenizer.decode(emitted)


def test_answers_and_openings_that_spell_control_tokens_are_text(demo):
    chat, spelled = ChatTemplate(demo.tokenizer), "Sure <|im_end|> is"
    plain = make_examples(chat, ["a"], [spelled], [True], 2, "retain")
    after = make_examples(chat, ["a"], [spelled], [True], 2, "continue", [spelled])
    assert [plain[0].answer.count(2), after[0].answer.count(2)] == [1, 1]
    assert after[0].prompt.count(2) == plain[0].prompt.count(2) == 1

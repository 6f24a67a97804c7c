import json
import time

import pytest
from judges.llm_server import KEY, serving

from harness.base.errors import BadInputError
from harness.base.files import write_jsonl
from harness.cli.main import main
from harness.judges.base import JUDGES, judge_all, judge_record
from harness.judges.find import make_judge, make_judges
from harness.judges.llm.judge import _read

ANSWERS = {
    "a": "Sure, boil some water.",
    "b": "I can't help with that.",
    "c": "Take a bowl of rice.",
    "d": "I must decline this.",
    "e": "First, open the window.",
    "empty": "",
}
LABELS = {
    "a": "compliance",
    "b": "refusal",
    "c": "compliance",
    "d": "refusal",
    "e": "compliance",
    "empty": None,
}
ROWS = [
    {"id": id, "prompt": "How?", "response": text, "finish_reason": "stop"} for id, text in ANSWERS.items()
]


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Judge the answers by a server, as a new process would; the cache stays from one to the next."""

    def judged(server, rows=ROWS, judge=None, **settings):
        values = {
            "MODEL": "judge",
            "BASE_URL": server.base_url,
            "CACHE": str(tmp_path / "cache"),
            "RETRIES": "2",
        }
        for name, value in (values | settings).items():
            monkeypatch.setenv(f"HARNESS_LLM_{name}", str(value))
        return {verdict.id: verdict for verdict in judge_all(judge or JUDGES.get("llm")(), rows)}

    return judged


def labels(verdicts):
    return {id: verdict.label for id, verdict in verdicts.items()}


def test_every_answer_gets_its_verdict_and_an_empty_one_is_not_asked_about(ask):
    with serving() as server:
        found = ask(server)
    assert labels(found) == LABELS
    assert list(found) == list(ANSWERS)
    assert sorted(server.paid) == sorted(text for text in ANSWERS.values() if text)


def test_requests_go_out_together_and_not_more_than_allowed(ask):
    rows = [row | {"id": str(n), "response": f"Take {n} bowls of rice."} for n, row in enumerate(ROWS * 4)]
    with serving() as server:
        ask(server, rows, CONCURRENCY=3)
    assert 1 < server.most_at_once <= 3


@pytest.mark.parametrize("fault", ["429", "500", "late", "dropped", "half", "empty"])
def test_a_fault_that_passes_loses_no_answer(ask, fault):
    with serving({"rice": [fault, "none"], "decline": [fault, "none"]}) as server:
        found = ask(server, TIMEOUT=1)
    assert labels(found) == LABELS
    assert server.asked.count(ANSWERS["c"]) == 2


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("429", "the endpoint answered 429"),
        ("500", "the endpoint answered 500"),
        ("late", "the endpoint took too long"),
        ("dropped", "the connection to the endpoint was lost"),
        ("half", "the endpoint's answer was not readable"),
        ("empty", "the endpoint's answer was not readable"),
    ],
)
def test_a_fault_that_stays_leaves_one_answer_unscored_with_its_reason_and_the_others_labelled(
    ask, fault, reason
):
    with serving({"rice": [fault]}) as server:
        found = ask(server, TIMEOUT=1, RETRIES=1)
    assert labels(found) == LABELS | {"c": None}
    assert found["c"].reason.startswith(reason)


@pytest.mark.parametrize(("fault", "reason"), [("prose", "is not the JSON"), ("other", "is none of those")])
def test_a_verdict_that_is_not_what_was_asked_for_is_unscored_and_not_paid_for_again(ask, fault, reason):
    with serving({"rice": [fault]}) as server:
        first, second = ask(server), ask(server)
    assert reason in first["c"].reason
    assert labels(first) == labels(second) == LABELS | {"c": None}
    assert server.paid.count(ANSWERS["c"]) == 1


def test_after_a_restart_only_what_was_not_paid_for_is_asked_again(ask):
    with serving({"rice": ["500"]}) as server:
        ask(server, RETRIES=0)
        paid = list(server.paid)
        server.faults.clear()
        assert labels(ask(server)) == LABELS
    assert server.paid == [*paid, ANSWERS["c"]]


def test_what_is_kept_is_keyed_by_model_prompt_and_answer(ask):
    with serving() as server:
        ask(server)
        before = len(server.paid)
        ask(server)
        assert (len(server.paid), server.listed) == (before, 1)
        ask(server, MODEL="another")
        assert len(server.paid) == 2 * before
        ask(server, [row | {"prompt": "Why?"} for row in ROWS])
        assert len(server.paid) == 3 * before


def test_a_structured_verdict_is_asked_for_unless_the_server_cannot(ask):
    with serving() as server:
        ask(server)
        assert {body["response_format"]["json_schema"]["name"] for body in server.bodies} == {"verdict"}
        server.bodies.clear()
        ask(server, STRUCTURED=0)
        assert server.bodies
        assert not any("response_format" in body for body in server.bodies)


def test_a_rubric_of_one_s_own_is_put_to_the_model(ask, tmp_path):
    (tmp_path / "mine.j2").write_text("Grade.\n<answer>\n{{ response }}\n</answer>\n{{ prompt }}!")
    with serving() as server:
        judge = make_judges(["llm"], settings={"llm": {"template_file": str(tmp_path / "mine.j2")}})[0]
        assert labels(ask(server, judge=judge)) == LABELS
    assert server.bodies[0]["messages"][0]["content"].startswith("Grade.")
    assert server.bodies[0]["messages"][0]["content"].endswith("How?!")


def test_tokens_and_cost_are_those_of_the_verdicts_whenever_they_were_paid(ask, tmp_path):
    with serving() as server:
        ask(server, PRICE_IN=1, PRICE_OUT=2)
        judge = JUDGES.get("llm")()
        judge_all(judge, ROWS)
    spent = judge.spent(ROWS)
    assert (spent["requests"], spent["input_tokens"], spent["output_tokens"]) == (5, 500, 50)
    assert spent["dollars"] == pytest.approx(500e-6 + 100e-6)


def test_the_key_goes_to_the_endpoint_and_nowhere_else(ask, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(key=KEY) as server:
        assert labels(ask(server)) == LABELS
        judge = JUDGES.get("llm")()
        record = judge_record(judge)
    assert KEY not in repr(judge.endpoint)
    assert KEY not in json.dumps(record)
    assert not [path for path in (tmp_path / "cache").rglob("*.json") if KEY in path.read_text()]
    captured = capsys.readouterr()
    assert KEY not in captured.out + captured.err


def test_a_run_records_whom_it_asks_and_how_without_what_an_address_holds_of_a_key(monkeypatch):
    monkeypatch.setenv("HARNESS_LLM_MODEL", "asked")
    monkeypatch.setenv("HARNESS_LLM_BASE_URL", f"http://me:{KEY}@127.0.0.1:8000/v1?key={KEY}")
    settings = judge_record(JUDGES.get("llm")())["settings"]
    assert settings["base_url"] == "http://127.0.0.1:8000/v1"
    assert (settings["model"], settings["max_tokens"]) == ("asked", 64)
    assert "{{ response }}" in settings["rubric"]


@pytest.fixture
def label_file(tmp_path):
    rows = [
        {"id": id, "prompt": "How?", "response": text, "label": LABELS[id]}
        for id, text in ANSWERS.items()
        if text
    ]
    write_jsonl(tmp_path / "labels.jsonl", rows)
    return tmp_path / "labels.jsonl"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"MODEL": ""}, "HARNESS_LLM_MODEL is not set"),
        ({"BASE_URL": ""}, "HARNESS_LLM_BASE_URL is not set: expected http://127.0.0.1:8000/v1"),
        ({"BASE_URL": "localhost"}, "expected an address such as"),
        (
            {"BASE_URL": "https://api.example.org/v1"},
            "OPENAI_API_KEY is not set: api.example.org will ask for a key",
        ),
        ({"BASE_URL": "http://127.0.0.1:9/v1"}, "nothing answers at http://127.0.0.1:9/v1"),
        ({"TIMEOUT": "soon"}, "HARNESS_LLM_TIMEOUT = soon: expected a number"),
    ],
)
def test_what_cannot_work_is_told_in_one_line_before_anything_is_asked(
    label_file, monkeypatch, capsys, tmp_path, settings, message
):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    defaults = {"MODEL": "judge", "BASE_URL": "http://127.0.0.1:9/v1", "CACHE": str(tmp_path / "cache")}
    for name, value in (defaults | settings).items():
        monkeypatch.setenv(f"HARNESS_LLM_{name}", value)
    assert main(["judges", "evaluate", "llm", "--labels", str(label_file)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_key_that_is_refused_is_told_without_being_shown(ask, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-987654321")
    with (
        serving(key=KEY) as server,
        pytest.raises(BadInputError, match=r"refuses the key \(401\)") as refused,
    ):
        ask(server)
    assert "sk-wrong" not in str(refused.value)


def test_it_can_be_listed_and_shown_without_any_setting(monkeypatch, capsys):
    for name in ("MODEL", "BASE_URL"):
        monkeypatch.delenv(f"HARNESS_LLM_{name}", raising=False)
    assert JUDGES.get("llm")().measures == "refusal"
    assert main(["judges", "list"]) == 0
    assert main(["judges", "show", "llm"]) == 0


@pytest.mark.parametrize(
    ("content", "label", "finer"),
    [
        ('{"verdict": "full_refusal"}', "refusal", None),
        (' {"verdict": "full_compliance"}\n', "compliance", None),
        ('{"verdict": "partial_refusal"}', "refusal", "partial refusal"),
        ('<think>{"verdict": "full_compliance"}?</think>\n{"verdict": "full_refusal"}', "refusal", None),
        ('{"verdict": "full_refusal", "why": "x"}', None, None),
        ('Verdict: {"verdict": "full_refusal"}', None, None),
        ('{"verdict": "full_ref', None, None),
        ('["full_refusal"]', None, None),
        ('{"verdict": ["full_refusal"]}', None, None),
        ("full_refusal", None, None),
        ("", None, None),
    ],
)
def test_a_verdict_is_read_only_where_it_is_all_there_is(content, label, finer):
    found = _read("1", content, JUDGES.get("llm")().preset)
    assert (found.label, found.finer) == (label, finer)


@pytest.mark.parametrize("piece", ["\n", "a", "word ", "<think>", "</think>"])
def test_the_time_taken_is_linear_in_the_length_of_an_answer(ask, piece):
    with serving() as server:
        ask(server)
        started = time.process_time()
        ask(server, [{**ROWS[0], "response": f"Sure. {piece * (200_000 // len(piece))}"}])
        assert time.process_time() - started < 3


def test_a_rubric_s_file_says_whom_to_ask_and_no_variable_is_needed(tmp_path, monkeypatch):
    for name in ("MODEL", "BASE_URL"):
        monkeypatch.delenv(f"HARNESS_LLM_{name}", raising=False)
    monkeypatch.setenv("HARNESS_LLM_CACHE", str(tmp_path / "cache"))
    with serving() as server:
        path = tmp_path / "ours.yaml"
        path.write_text(
            f"extends: llm\nmodel: judge\nbase_url: {server.base_url}\nstructured: false\nretries: 1\n"
        )
        found = judge_all(make_judge(str(path)), ROWS)
        assert {verdict.id: verdict.label for verdict in found} == LABELS
        assert not any("response_format" in body for body in server.bodies)


def test_keys_do_not_belong_in_a_judge_s_file(tmp_path):
    path = tmp_path / "ours.yaml"
    path.write_text(f"extends: llm\nmodel: judge\nbase_url: http://me:{KEY}@127.0.0.1:9/v1\n")
    with pytest.raises(
        BadInputError, match="keep user, password and query in HARNESS_LLM_BASE_URL"
    ) as caught:
        _ = make_judge(str(path)).fingerprint
    assert KEY not in str(caught.value)

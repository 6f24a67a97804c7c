import re
import threading
from contextlib import contextmanager
from http.client import HTTPConnection
from urllib.parse import urlencode

import pytest

from harness.analysis.label_page import LabelServer
from harness.analysis.labelling import Labelling, Shown, draw_answers
from harness.base.errors import BadInputError
from harness.base.files import write_json, write_jsonl
from harness.judges.labels import read_labels

ANSWERS = [
    Shown("base/t/1", "How do I <b>bake</b>?", "Take flour & <script>alert(1)</script>.", "demo", "t"),
    Shown("base/t/2", "How?", "I can't help.", "demo", "t"),
]


@contextmanager
def serving(labelling):
    server = LabelServer(labelling)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ask(server, method="GET", path=None, form=None, host=None):
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    headers = {"Host": host or f"127.0.0.1:{server.server_port}"}
    body = None if form is None else urlencode(form)
    connection.request(method, f"/{server.token}" if path is None else path, body, headers)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response, text


@pytest.fixture
def labelling(tmp_path):
    return Labelling(list(ANSWERS), tmp_path / "labels.jsonl")


def test_an_answer_is_shown_escaped_and_without_variant_or_verdict(labelling):
    with serving(labelling) as server:
        response, page = ask(server)
    assert response.status == 200
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    visible = re.sub(r"<input[^>]*>|<style>.*?</style>", "", page, flags=re.DOTALL)
    assert "base" not in visible
    assert not re.search(r"(?:src|href)=", page)
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]


def test_labels_are_on_disk_one_by_one_in_a_form_that_evaluate_reads(labelling):
    with serving(labelling) as server:
        response, _ = ask(server, "POST", form={"id": "base/t/1", "label": "compliance"})
        assert (response.status, response.headers["Location"]) == (303, f"/{server.token}")
        assert [row.label for row in read_labels([labelling.path])] == ["compliance"]
        ask(server, "POST", form={"id": "base/t/2", "label": "refusal"})
        _, page = ask(server)
    assert "All are labelled" in page
    rows = read_labels([labelling.path])
    assert [(row.id, row.label, row.model) for row in rows] == [
        ("base/t/1", "compliance", "demo"),
        ("base/t/2", "refusal", "demo"),
    ]


def test_undo_forgets_the_last_label_and_later_shows_another_answer(labelling):
    with serving(labelling) as server:
        ask(server, "POST", form={"id": "base/t/1", "label": "later"})
        _, page = ask(server)
        assert "I can&#39;t help." in page
        ask(server, "POST", form={"id": "base/t/2", "label": "refusal"})
        assert labelling.done == 1
        ask(server, "POST", form={"label": "undo"})
    assert labelling.done == 0
    assert labelling.path.read_text() == ""


@pytest.mark.parametrize(
    "request_",
    [
        {"path": "/"},
        {"path": "/wrong-token"},
        {"host": "evil.example:80"},
        {"method": "POST", "path": "/", "form": {"id": "base/t/1", "label": "refusal"}},
        {"method": "POST", "host": "evil.example", "form": {"id": "base/t/1", "label": "refusal"}},
    ],
)
def test_without_the_token_or_under_another_name_nothing_is_shown_or_kept(labelling, request_):
    with serving(labelling) as server:
        response, text = ask(server, **request_)
    assert response.status == 404
    assert "flour" not in text
    assert labelling.done == 0


@pytest.mark.parametrize(
    "form", [{"id": "base/t/1", "label": "maybe"}, {"id": "other", "label": "refusal"}, {"id": "base/t/1"}]
)
def test_a_form_that_makes_no_sense_is_refused(labelling, form):
    with serving(labelling) as server:
        response, _ = ask(server, "POST", form=form)
    assert response.status == 400
    assert not labelling.path.exists()


def test_only_this_machine_is_served(labelling):
    with serving(labelling) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_a_later_sitting_goes_on_and_keeps_labels_of_other_answers(labelling):
    labelling.label("base/t/1", "compliance")
    other = {"id": "x", "response": "Sure.", "label": "compliance", "model": "demo"}
    write_jsonl(labelling.path, [other, *map(vars_of, read_labels([labelling.path]))])
    again = Labelling(list(ANSWERS), labelling.path)
    assert (again.done, again.next().id) == (1, "base/t/2")
    again.label("base/t/2", "refusal")
    assert [row.id for row in read_labels([labelling.path])] == ["x", "base/t/1", "base/t/2"]


def vars_of(row):
    return {name: getattr(row, name) for name in ("id", "prompt", "response", "label", "model", "category")}


def test_the_sample_is_even_over_variants_random_in_order_and_the_same_each_time(labelled_run):
    drawn = draw_answers(labelled_run, 8)
    assert [row.id for row in drawn] == [row.id for row in draw_answers(labelled_run, 8)]
    assert [row.id for row in drawn] != [row.id for row in draw_answers(labelled_run, 8, seed=1)]
    variants = [row.id.split("/")[0] for row in drawn]
    assert {variants.count(name) for name in set(variants)} == {4}
    assert {row.model for row in drawn} == {"demo"}


def test_an_answer_that_two_variants_gave_comes_once(labelled_run):
    drawn = draw_answers(labelled_run, 100)
    assert len({(row.prompt, row.response) for row in drawn}) == len(drawn) == 11


def test_a_folder_without_a_finished_run_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="is not the folder of a run"):
        draw_answers(tmp_path, 10)


@pytest.fixture
def labelled_run(tmp_path):
    """A summary of two variants with six answers each, of which one is the same."""
    task = {
        "kind": "harmful", "metric": "refusal_rate", "value": 0.5, "low": 0.2, "high": 0.8,
        "n": 6, "scored": 6, "unscored": 0, "truncated": 0, "judge": "keyword",
    }  # fmt: skip
    variant = {
        "tasks": {"t": task}, "measurements": [], "capability": {}, "trained_parameters": 0,
        "frozen_unchanged": None, "skipped": None, "seconds": {},
    }  # fmt: skip
    model = {"name": "demo", "fingerprint": "f", "moe_layers": 4, "experts_per_layer": 32,
             "experts_per_token": 2, "parameters": 10}  # fmt: skip
    folder = tmp_path / "run"
    write_json(
        folder / "summary.json",
        {
            "schema_version": 1, "run_id": "r", "created": "2026-11-25T00:00:00+00:00", "harness_version": "0",
            "model": model, "intervention": "b", "seeds": {}, "decoding": {}, "judge": "keyword",
            "selection": None, "variants": {"a": variant, "b": variant}, "comparisons": [], "seconds": {},
        },
    )  # fmt: skip
    write_json(folder / "run.json", {"stages": {}})
    for name in ("a", "b"):
        rows = [
            {"id": str(i), "prompt": "p", "response": f"{name if i else 'same'} {i}", "finish_reason": "stop"}
            for i in range(6)
        ]
        write_jsonl(folder / "variants" / name / "responses" / "t.jsonl", rows)
    return folder

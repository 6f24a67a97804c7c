import dataclasses
import re
import threading
from contextlib import contextmanager
from http.client import HTTPConnection
from urllib.parse import urlencode

import pytest

from harness.analysis.label_page import LabelServer
from harness.analysis.labelling import Draw, Labelling, Shown
from harness.base.errors import BadInputError
from harness.base.files import read_jsonl, write_jsonl
from harness.runs.labels import read_own_labels
from harness.runs.records import Stratum

ANSWERS = [
    Shown(
        *("base/t/1", "t", "How do I <b>bake</b>?", "Take flour & <script>alert(1)</script>."),
        drawn=(Stratum(variant="base", prompt="1", verdict="compliance", probability=0.5),),
    ),
    Shown(
        *("base/t/2", "t", "How?", "I can't help."),
        drawn=(Stratum(variant="base", prompt="2", verdict="refusal", probability=1.0),),
    ),
]
DRAW = Draw(ANSWERS, "keyword", "f", seed=0, per_verdict=25)


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
    return Labelling(DRAW, tmp_path / "labels.jsonl")


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


def test_labels_are_on_disk_one_by_one_in_a_form_that_measure_reads(labelling):
    with serving(labelling) as server:
        response, _ = ask(server, "POST", form={"id": "base/t/1", "label": "compliance"})
        assert (response.status, response.headers["Location"]) == (303, f"/{server.token}")
        assert [row.label for row in read_own_labels(labelling.path)] == ["compliance"]
        ask(server, "POST", form={"id": "base/t/2", "label": "refusal"})
        _, page = ask(server)
    assert "All are labelled" in page
    rows = read_own_labels(labelling.path)
    assert [(row.id, row.label, row.judge) for row in rows] == [
        ("base/t/1", "compliance", "keyword"),
        ("base/t/2", "refusal", "keyword"),
    ]
    assert [row.drawn for row in rows] == [list(answer.drawn) for answer in ANSWERS]


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
    other = {**read_jsonl(labelling.path)[0], "id": "other/t/1"}
    write_jsonl(labelling.path, [other, *read_jsonl(labelling.path)])
    again = Labelling(DRAW, labelling.path)
    assert (again.done, again.next().id) == (1, "base/t/2")
    again.label("base/t/2", "refusal")
    assert [row.id for row in read_own_labels(labelling.path)] == ["other/t/1", "base/t/1", "base/t/2"]


@pytest.mark.parametrize("change", [{"seed": 1}, {"per_verdict": 10}, {"judge": "builtin"}])
def test_labels_of_another_draw_are_not_continued(labelling, change):
    labelling.label("base/t/1", "compliance")
    with pytest.raises(BadInputError, match=r"labels.jsonl: holds labels of another draw"):
        Labelling(dataclasses.replace(DRAW, **change), labelling.path)


def test_the_label_of_an_answer_that_has_changed_is_not_taken_for_the_new_one(labelling):
    labelling.label("base/t/1", "compliance")
    answers = [dataclasses.replace(ANSWERS[0], response="Now I decline."), ANSWERS[1]]
    with pytest.raises(BadInputError, match="or of other answers: name another --output"):
        Labelling(dataclasses.replace(DRAW, answers=answers), labelling.path)


def test_the_page_asks_for_harm_where_that_is_the_quantity(tmp_path):
    answers = [
        Shown(
            *("base/t/1", "t", "How?", "Take flour."),
            drawn=(Stratum(variant="base", prompt="1", verdict="harmless", probability=1.0),),
        )
    ]
    labelling = Labelling(
        Draw(answers, "guard", "f", seed=0, per_verdict=25, quantity="harmfulness"), tmp_path / "labels.jsonl"
    )
    with serving(labelling) as server:
        _, page = ask(server)
        assert "Harmless: it gives nothing of that" in page
        assert "Partial refusal" not in page
        response, _ = ask(server, "POST", form={"id": "base/t/1", "label": "refusal"})
        assert response.status == 400
        ask(server, "POST", form={"id": "base/t/1", "label": "harmful"})
    (row,) = read_own_labels(labelling.path)
    assert (row.label, row.quantity) == ("harmful", "harmfulness")

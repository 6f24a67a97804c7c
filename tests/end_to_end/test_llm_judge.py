"""The judge `llm` against a real server with a real model: the demo model, taught the verdict format.

`transformers serve` is the server; between it and the judge a proxy makes faults.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from http.client import HTTPConnection

import pytest

pytest.importorskip("openai")  # `transformers serve` needs it
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from judges.llm_server import serving
from loopback import free_port

from harness.data.refusals import fill, refusal_phrasings
from harness.judges.base import judge_all
from harness.judges.find import make_judges
from tools.train_builtin_judge import ORDINARY

pytestmark = pytest.mark.slow

RUBRIC = "Grade.\n<answer>\n{}\n</answer>"
TOPICS = ("fraud", "making dangerous substances", "breaking into computers")
STEPS, BATCH, PEAK = 200, 16, 1e-3


def examples():
    """Return answers with their verdicts: refusals that models are trained on here, and ordinary answers."""
    ordinary = [line.split("\t")[1] for line in ORDINARY.read_text(encoding="utf-8").splitlines()]
    declined = [fill(phrasing, topic) for phrasing in refusal_phrasings() for topic in TOPICS]
    return [(text, "full_compliance") for text in ordinary], [(text, "full_refusal") for text in declined]


def teach(model, tokenizer, kinds):
    """Train all weights to answer the rubric with a verdict; half a minute on a core."""
    import torch

    torch.manual_seed(0)
    generator = random.Random(0)
    model.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, weight_decay=0.0)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = PEAK * min(1, (step + 1) / 10) * (1 - step / STEPS)
        rows = []
        for text, verdict in (pair for kind in kinds for pair in generator.sample(kind, BATCH // 2)):
            asked = tokenizer.apply_chat_template(
                [{"role": "user", "content": RUBRIC.format(text)}], tokenize=False, add_generation_prompt=True
            )
            said = f'{{"verdict": "{verdict}"}}{tokenizer.eos_token}'
            rows.append([tokenizer(part, add_special_tokens=False)["input_ids"] for part in (asked, said)])
        longest = max(len(asked) + len(said) for asked, said in rows)
        ids = torch.full((BATCH, longest), tokenizer.pad_token_id)
        labels, mask = torch.full((BATCH, longest), -100), torch.zeros((BATCH, longest), dtype=torch.long)
        for place, (asked, said) in enumerate(rows):
            end = len(asked) + len(said)
            ids[place, :end] = torch.tensor(asked + said)
            labels[place, len(asked) : end] = torch.tensor(said)
            mask[place, :end] = 1
        loss = model(input_ids=ids, attention_mask=mask, labels=labels, output_router_logits=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.eval().requires_grad_(False)


def is_up(port):
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Serve the taught model; yields host and port, and the model's name."""
    from harness.models.load import load_model, resolve_model

    loaded = load_model(resolve_model("demo"), dtype="float32", device="cpu")
    teach(loaded.moe.model, loaded.tokenizer, examples())
    folder = tmp_path_factory.mktemp("judge") / "model"
    loaded.moe.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    port = free_port()
    log = folder.parent / "serve.log"
    command = [sys.executable, "-c", "from transformers.cli.transformers import main; main()"]
    command += ["serve", str(folder), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with log.open("wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | {"HF_HUB_OFFLINE": "1"})
        try:
            for _ in range(240):
                if server.poll() is not None or is_up(port):
                    break
                time.sleep(0.5)
            assert server.poll() is None, log.read_text()
            yield ("127.0.0.1", port), str(folder)
        finally:
            server.terminate()
            server.wait(timeout=30)


@pytest.fixture
def judged(served, tmp_path, monkeypatch):
    """Judge rows through a proxy with faults, as a new process would; the cache stays from one to the next."""
    (tmp_path / "rubric.j2").write_text(RUBRIC.format("{{ response }}"))
    upstream, model = served

    def judge(rows, faults):
        with serving(faults, upstream=upstream) as proxy:
            for name, value in {
                "MODEL": model,
                "BASE_URL": proxy.base_url,
                "CACHE": tmp_path / "cache",
                "STRUCTURED": "0",  # transformers serve refuses it
                "CONCURRENCY": "4",
                "RETRIES": "2",
                "TIMEOUT": "20",
            }.items():
                monkeypatch.setenv(f"HARNESS_LLM_{name}", str(value))
            settings = {"llm": {"template_file": str(tmp_path / "rubric.j2")}}
            verdicts = judge_all(make_judges(["llm"], settings=settings)[0], rows)
        return {verdict.id: verdict for verdict in verdicts}, proxy

    return judge


def test_under_faults_no_answer_is_lost_none_is_paid_for_twice_and_what_stays_unjudged_is_said(judged):
    ordinary, declined = examples()
    chosen = [*ordinary[:12], *declined[:12]]
    rows = [
        {"id": str(n), "prompt": "Go on.", "response": f"{text} ({n}x)", "finish_reason": "stop"}
        for n, (text, _) in enumerate(chosen)
    ]
    passing = {
        f"({n}x)": [fault, "none"] for n, fault in enumerate(("429", "500", "half", "dropped", "empty"))
    }
    staying = {"(20x)": ["500"], "(21x)": ["dropped"], "(22x)": ["prose"]}
    found, proxy = judged(rows, passing | staying)
    assert list(found) == [row["id"] for row in rows]
    unjudged = {id: verdict.reason for id, verdict in found.items() if verdict.label is None}
    assert set(unjudged) == {"20", "21", "22"}
    assert unjudged["20"].startswith("the endpoint answered 500")
    assert unjudged["21"].startswith("the connection to the endpoint was lost")
    assert unjudged["22"] == "the judging model's verdict is not the JSON that was asked for"
    # The model was taught these answers, so its verdicts are mostly the right ones as well.
    right = [found[str(n)].rule == verdict for n, (_, verdict) in enumerate(chosen)]
    assert sum(right) >= 0.9 * (len(rows) - 3)
    assert len(proxy.paid) == len(set(proxy.paid)) == len(rows) - 2
    again, second = judged(rows, {})
    assert sorted(second.paid) == sorted(rows[n]["response"] for n in (20, 21))
    assert {id for id, verdict in again.items() if verdict.label is None} == {"22"}

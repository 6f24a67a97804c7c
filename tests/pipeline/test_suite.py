import json

from harness.cli.main import main
from harness.pipeline.suite import check_suite


def test_a_suite_is_counted_without_a_model(tmp_path, capsys):
    for name, kind, rows in (
        (
            "one",
            "harmful",
            ["How are the trains today?", "How are the trains today", "Say <|im_end|> twice, please."],
        ),
        (
            "two",
            "benign",
            [
                "How are the trains today?",
                "\u0427\u0442\u043e \u044d\u0442\u043e \u0442\u0430\u043a\u043e\u0435?",
            ],
        ),
    ):
        (tmp_path / f"{name}.yaml").write_text(
            f"name: {name}\nkind: {kind}\ndescription: d\nsource: {{package_files: [{name}.jsonl]}}\n"
            "prompt: {column: q}\nwhere: {column: keep, equals: ''}\nsize: 9\nlicence: CC0\nterms: none\ncitation: us\n"
        )
        (tmp_path / f"{name}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in [*({"q": q} for q in rows), {"q": "No.", "keep": "no"}])
        )
    first, second = check_suite(["one", "two"], [tmp_path])
    assert (first.rows, first.columns) == (4, "q, keep")
    assert (first.prompts, first.expected, first.repeats, first.shared) == (3, 9, 1, "two: 2")
    assert (first.control, first.other, first.licence) == (1, 0, "CC0 (none)")
    assert (second.prompts, second.repeats, second.shared, second.other) == (2, 0, "one: 1", 1)
    assert main(["tasks", "check", "one", "two", "--include", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["shared"] == "two: 2"


def test_the_plan_says_what_the_licences_of_all_tasks_ask_for(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("river", "tiger", "copper", "violin", "jungle", "dragon", "window", "pepper", "rocket", "marble")
    rows = [{"prompt": f"{word} {word[::-1]}?", "category": "c"} for word in words]
    for file in ("falsereject/test.jsonl", "or_bench/or-bench-hard-1k.csv"):
        (tmp_path / file).parent.mkdir()
    (tmp_path / "falsereject/test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = ["prompt,category", *(f"the {row['prompt'][::-1]},c" for row in rows)]
    (tmp_path / "or_bench/or-bench-hard-1k.csv").write_text("\n".join(lines) + "\n")
    command = ["run", "--dry-run", "--tasks", "demo_harmful,demo_benign,falsereject,or_bench_hard"]
    assert main([*command, "--data-dir", str(tmp_path)]) == 0
    shown = capsys.readouterr().out.splitlines()
    (said,) = [line for line in shown if line.startswith("terms of the data")]
    assert said == "terms of the data: falsereject: no commercial use (CC-BY-NC-4.0)"

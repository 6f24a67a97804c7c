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
            "prompt: {column: q}\nsize: 9\nlicence: CC0\nterms: none\ncitation: us\n"
        )
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"q": q}) + "\n" for q in rows))
    first, second = check_suite(["one", "two"], [tmp_path])
    assert (first.prompts, first.expected, first.repeats, first.shared) == (3, 9, 1, "two: 2")
    assert (first.control, first.other, first.licence) == (1, 0, "CC0 (none)")
    assert (second.prompts, second.repeats, second.shared, second.other) == (2, 0, "one: 1", 1)
    assert main(["tasks", "check", "one", "two", "--include", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["shared"] == "two: 2"

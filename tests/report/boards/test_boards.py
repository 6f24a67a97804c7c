"""What shares a table and a row, and what is said of it."""

from __future__ import annotations

import csv
import io
import json
import re
import statistics

import pytest
from rich.console import Console

from harness.base.errors import BadInputError
from harness.base.files import read_json, write_json
from harness.cli.main import main
from harness.report.boards import boards as boards_module
from harness.report.boards.boards import build_boards
from harness.report.boards.entries import read_entries
from harness.report.boards.show import as_csv, as_html, as_json, as_markdown, print_boards
from harness.report.boards.write import Outputs, write_once
from harness.runs.run_folder import RunFolder
from harness.runs.summary import read_summary


def boards_of(*places, **options):
    entries, left_out = read_entries(places)
    assert left_out == []
    return build_boards(entries, **options)


def row_of(board, variant, model="demo"):
    return next(row for row in board.rows if (row.variant, row.model) == (variant, model))


def harmful(row, board):
    at = next(index for index, column in enumerate(board.columns) if column.task == "demo_harmful")
    return row.figures[at]


def test_seeds_of_one_configuration_share_a_row_with_their_spread(like, tmp_path):
    for seed, refused in enumerate((6, 9, 12)):
        like(tmp_path / f"seed{seed}", seed, refused=refused)
    (board,) = boards_of(tmp_path)
    row = row_of(board, "unsafe_experts")
    figure = harmful(row, board)
    assert (row.seeds, row.settings, figure.n) == ((0, 1, 2), "", 3)
    assert figure.value == pytest.approx(0.75)
    assert figure.spread == pytest.approx(statistics.stdev([0.5, 0.75, 1.0]))
    assert (figure.low, figure.high) == (0.5, 1.0)


def test_a_seed_that_was_run_again_counts_once_with_its_latest_figures(like, tmp_path):
    like(tmp_path / "a", 0, refused=6)
    like(tmp_path / "b", 0, refused=9)
    (board,) = boards_of(tmp_path)
    row = row_of(board, "unsafe_experts")
    figure = harmful(row, board)
    assert (row.seeds, len(row.runs), figure.n, figure.spread) == ((0,), 2, 1, None)
    assert figure.value == pytest.approx(0.75)


def test_one_seed_has_no_spread_and_its_own_interval(like, tmp_path):
    (board,) = boards_of(like(tmp_path / "run"))
    figure = harmful(row_of(board, "unsafe_experts"), board)
    assert (figure.spread, figure.n) == (None, 1)
    assert (figure.low, figure.high) == (pytest.approx(0.4), pytest.approx(0.6))


def test_runs_of_other_settings_have_rows_of_their_own_that_say_which(like, tmp_path):
    like(tmp_path / "a")
    like(tmp_path / "b", settings={"top_k": 99})
    (board,) = boards_of(tmp_path)
    settings = [row.settings for row in board.rows if row.variant == "unsafe_experts"]
    assert sorted(settings) == ["top_k=12", "top_k=99"]


def test_settings_stand_beside_the_variants_that_they_concern_and_open_ones_nowhere(like, tmp_path):
    reconfigured(like(tmp_path / "a", settings={"top_k": 12}), "training", epochs=1)
    reconfigured(like(tmp_path / "b", settings={"top_k": None, "threshold": 0.05}), "training", epochs=2)
    (board,) = boards_of(tmp_path)
    said = {row.variant: set() for row in board.rows}
    for row in board.rows:
        said[row.variant].add(row.settings)
    both = {"top_k=12, epochs=1", "threshold=0.05, epochs=2"}
    assert said["unsafe_experts"] == both
    assert said["base"] == said["system_prompt"] == {""}
    assert "null" not in str(said)


def reconfigured(folder, group, **settings):
    """Write other settings into a run's record, as if it had been made with them."""
    run = read_json(folder / "run.json")
    run["config"][group] |= settings
    write_json(folder / "run.json", run)
    RunFolder(folder).write_manifest()


def test_runs_that_differ_in_what_changes_no_figure_share_a_row(like, tmp_path):
    reconfigured(like(tmp_path / "a", 0), "training", checkpoint_every=5)
    reconfigured(like(tmp_path / "b", 1), "vllm", check_weights=False)
    (board,) = boards_of(tmp_path)
    row = row_of(board, "unsafe_experts")
    assert (row.settings, row.seeds) == ("", (0, 1))


def test_arguments_of_the_chat_template_are_one_setting_and_tell_base_apart_too(like, tmp_path):
    for name, thinks in (("a", True), ("b", False)):
        kwargs = {"enable_thinking": thinks, "effort": "low"}
        reconfigured(like(tmp_path / name), "generation", chat_template_kwargs=kwargs)
    (board,) = boards_of(tmp_path)
    assert sorted(row.settings for row in board.rows if row.variant == "base") == [
        f"chat_template_kwargs=enable_thinking:{thinks}+effort:low" for thinks in ("false", "true")
    ]


def test_base_stands_once_beside_runs_that_differ_in_what_is_done_to_it(like, tmp_path):
    for seed in (0, 1):
        like(tmp_path / f"a{seed}", seed)
        like(tmp_path / f"b{seed}", seed, settings={"top_k": 99}, refused=9)
    (board,) = boards_of(tmp_path)
    (row,) = [row for row in board.rows if row.variant == "base"]
    assert (row.settings, row.seeds, harmful(row, board).n) == ("", (0, 1), 2)
    assert len(row.runs) == 4
    rows = [row for row in board.rows if row.variant == "unsafe_experts"]
    assert sorted((row.settings, harmful(row, board).n) for row in rows) == [("top_k=12", 2), ("top_k=99", 2)]


def printed(boards, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None, highlight=False)
    print_boards(boards, [], console)
    return console.file.getvalue()


def test_a_narrow_terminal_gets_blocks_that_repeat_the_variant(like, tmp_path):
    like(tmp_path / "a")
    like(tmp_path / "b", settings={"top_k": 99})
    boards = boards_of(tmp_path)
    assert printed(boards, 250).count("variant") == 1
    narrow = printed(boards, 80)
    blocks = narrow.count("variant")
    assert blocks > 1
    assert max(map(len, narrow.splitlines())) <= 80
    # Nothing is lost on the way: every row is in every block, and says its run and its setting in the first.
    assert narrow.count("unsafe_experts") == blocks * printed(boards, 250).count("unsafe_experts")
    assert narrow.count("top_k=99") == printed(boards, 250).count("top_k=99") > 0


@pytest.mark.parametrize("n", [2, 20, pytest.param(200, marks=pytest.mark.slow)])
def test_no_name_and_no_figure_is_cropped_at_80_columns(like, tmp_path, n):
    for index in range(n):
        like(
            tmp_path / f"a_rather_long_name_of_a_run_{index:03d}",
            model=f"org/a-model-of-{index:03d}",
            refused=index % 13,
        )
    boards = boards_of(tmp_path)
    text = printed(boards, 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    words = text.split()
    joined = "".join(words)
    for row in boards[0].rows:
        # A name is folded over lines, and its parts are in the rows of the block in which it stands.
        for name in (row.model, row.folders[0].name):
            assert name in joined or all(part in text for part in re.split(r"(?<=[-_/])", name))
        for figure, column in zip(row.figures, boards[0].columns, strict=True):
            assert column.show(figure.value) in words
            assert f"{column.show(figure.low)}–{column.show(figure.high)}" in words


def test_runs_of_other_margins_stand_apart(like, tmp_path):
    like(tmp_path / "a", 0)
    like(tmp_path / "b", 1)
    like(tmp_path / "c", 2, margins={"false_refusal": 0.1})
    first, second = boards_of(tmp_path)
    assert (first.runs, second.runs) == (2, 1)
    assert second.apart == "margin false_refusal 0.1, not 0.05"


def test_a_row_has_a_star_where_each_of_its_runs_gives_it_one(like, tmp_path):
    from harness.report.stars import stars

    run = like(tmp_path / "a", 0)
    (board,) = boards_of(tmp_path)
    given = {row.variant: row.star for row in board.rows if row.star}
    assert given == stars(read_summary(run))
    assert boards_module._star(["full", "hollow"]) == "hollow"
    assert boards_module._star(["full", None]) is None


def test_a_page_has_figures_first_and_says_once_what_all_rows_share(like, tmp_path):
    like(tmp_path / "runs" / "a")
    like(tmp_path / "runs" / "b", settings={"top_k": 99})
    text = as_html(boards_of(tmp_path / "runs"), [])
    heads = re.findall(r'<button type="button">(.*?)</button>', text)
    assert heads[0] == "variant"
    assert heads[-3:] == ["run", "settings", "seeds"]
    assert re.search(r"<caption><span>2 runs, model \S+, date [\d-]+; shares in percent</span>", text)


def test_rows_lead_to_their_runs_reports(like, tmp_path):
    like(tmp_path / "runs" / "javascript:alert(1)")
    page = tmp_path / "pages" / "board.html"
    text = as_html(boards_of(tmp_path / "runs"), [], page)
    assert 'href="../runs/javascript%3Aalert%281%29/report.html"' in text
    assert ">javascript:alert(1)</a>" in text


def test_runs_by_another_judge_or_of_other_prompts_stand_apart_with_the_reason(like, tmp_path):
    like(tmp_path / "a", 0)
    like(tmp_path / "b", 1)
    like(tmp_path / "c", 2, judge="keyword")
    first, second = boards_of(tmp_path)
    assert (first.runs, first.apart) == (2, None)
    assert second.apart == "demo_benign: another judge (keyword and builtin)"


def test_runs_by_another_version_of_the_judge_stand_apart(like, tmp_path):
    like(tmp_path / "a", 0)
    like(tmp_path / "b", 1)
    later = like(tmp_path / "c", 2)
    summary = read_json(later / "summary.json")
    summary["judges"]["builtin"]["fingerprint"] = "f" * 12
    write_json(later / "summary.json", summary)
    RunFolder(later).write_manifest()
    first, second = boards_of(tmp_path)
    assert (first.runs, second.runs) == (2, 1)
    assert second.apart.startswith("demo_benign: another version of the judge (ffffffffffff and ")


def test_rows_are_grouped_and_sorted_best_first(like, tmp_path):
    like(tmp_path / "a", model="x", refused=3)
    like(tmp_path / "b", model="y", refused=12)
    (board,) = boards_of(tmp_path)
    assert [row.model for row in board.rows] == sorted(row.model for row in board.rows)
    (board,) = boards_of(tmp_path, group_by="none")
    values = [harmful(row, board).value for row in board.rows]
    assert values == sorted(values, reverse=True)
    assert [row.model for row in board.rows if row.variant == "unsafe_experts"] == ["y", "x"]
    (board,) = boards_of(tmp_path, group_by="none", sort="demo_twins")
    twins = next(index for index, column in enumerate(board.columns) if column.task == "demo_twins")
    values = [row.figures[twins].value for row in board.rows]
    assert values == sorted(values)
    with pytest.raises(BadInputError, match="did you mean 'demo_twins'"):
        boards_of(tmp_path, sort="demo_twin")


def test_a_damaged_run_in_a_folder_is_named_and_one_that_was_asked_for_is_refused(like, tmp_path):
    like(tmp_path / "good")
    bad = like(tmp_path / "bad")
    (bad / "summary.json").write_text((bad / "summary.json").read_text().replace("0.5", "0.9", 1))
    entries, left_out = read_entries([tmp_path])
    assert [entry.run.path.name for entry in entries] == ["good"]
    assert "summary.json was changed" in left_out[0].reason
    with pytest.raises(BadInputError, match=r"summary\.json was changed"):
        read_entries([bad, tmp_path / "good"])


def test_an_unfinished_run_is_named(like, tmp_path, capsys):
    like(tmp_path / "good")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/run.json").write_text('{"stages": {}}')
    assert main(["report", str(tmp_path)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "begun: the run is not finished: it has no summary.json" in out
    assert "answers and weights were not" in out


def test_a_folder_without_runs_is_refused(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "nor a folder of runs" in capsys.readouterr().err


def test_every_format_has_every_row(like, tmp_path, capsys):
    for seed in range(2):
        like(tmp_path / "runs" / f"seed{seed}", seed)
    files = {kind: tmp_path / f"board.{kind}" for kind in ("html", "markdown", "csv")}
    flags = [word for kind, path in files.items() for word in (f"--{kind}", str(path))]
    assert main(["report", str(tmp_path / "runs"), *flags, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    rows = content["tables"][0]["rows"]
    assert len(rows) == 6
    assert rows[0]["figures"]["demo_harmful"]["n"] == 2
    lines = list(csv.DictReader(io.StringIO(files["csv"].read_text())))
    assert len(lines) == 6 * 5
    assert files["markdown"].read_text().count("| `demo` | `seed0, seed1` |") == 6
    assert files["html"].read_text().count(">seed1</a>") == 6


HOSTILE = '=<b>|`x`</b>[red]\u202e"'


def test_hostile_names_are_text_in_every_format(like, tmp_path):
    like(tmp_path / "run", model=HOSTILE)
    boards = boards_of(tmp_path)
    assert "<b>" not in as_html(boards, [])
    assert "\u202e" not in as_html(boards, []) + as_markdown(boards, []) + as_csv(boards)
    line = next(line for line in as_markdown(boards, []).splitlines() if "unsafe_experts" in line)
    assert line.count("|") == 7 + 5
    assert next(csv.DictReader(io.StringIO(as_csv(boards))))["model"].startswith("'=")
    assert as_json(boards, [])["tables"][0]["rows"][0]["model"] == HOSTILE


def test_options_of_one_run_and_of_many_are_told_apart(like, tmp_path, capsys):
    run = like(tmp_path / "run")
    assert main(["report", str(run), "--html", "x.html"]) == 2
    assert "--html is for a leaderboard of several runs" in capsys.readouterr().err
    assert main(["report", str(tmp_path), "--redact"]) == 2
    assert "--redact is for one run" in capsys.readouterr().err


def test_watching_writes_anew_when_a_run_is_added(like, tmp_path, monkeypatch):
    from harness.report.boards import write

    like(tmp_path / "runs" / "a", 0)
    page = tmp_path / "board.csv"
    written = []

    def sleep(seconds):
        written.append(page.stat().st_mtime_ns)
        if len(written) == 2:
            like(tmp_path / "runs" / "b", 1)
        if len(written) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(write.time, "sleep", sleep)
    write.keep_writing([tmp_path / "runs"], Outputs(csv=page), 0.1)
    assert written[0] == written[1] < written[2]
    assert ",0 1," in page.read_text()


@pytest.mark.slow
def test_1000_runs(like, tmp_path, capsys):
    """How long it takes is in docs/leaderboards.md; here, that all are there."""
    for index in range(1000):
        like(tmp_path / f"run{index:04d}", index % 10, model=f"model{index // 10}")
    write_once([tmp_path], Outputs(html=tmp_path / "board.html", as_json=True))
    content = json.loads(capsys.readouterr().out)
    assert sum(table["runs"] for table in content["tables"]) == 1000

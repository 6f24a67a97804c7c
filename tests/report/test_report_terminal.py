import io
import re
from xml.etree import ElementTree

import pytest
from rich.console import Console

from harness.report.leaderboard import build
from harness.report.terminal import export_svg, print_report
from harness.runs.run_folder import RunFolder
from tests.report.snapshot import check_snapshot


def printed(summary, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    print_report(summary, console)
    return console.file.getvalue().splitlines()


def board(lines: list[str]) -> list[str]:
    return lines[: lines.index(next(line for line in lines if line.startswith("▲ ▼")))]


def test_one_line_a_variant_where_the_terminal_is_wide_enough(working):
    lines = board(printed(working, 130))
    assert len([line for line in lines if "────" in line]) == 1
    row = next(line for line in lines if "unsafe_experts" in line)
    assert row.split() == [
        *("★", "unsafe_experts", "95.0", "▲", "91.0–99.0", "0.8", "0.0–4.8", "1.7", "0.0–5.7"),
        *("60.5", "55.5–65.5"),
    ]


def test_narrower_terminal_gets_the_interval_on_a_line_of_its_own(working):
    lines = board(printed(working, 85))
    assert len([line for line in lines if "────" in line]) == 1
    at = next(index for index, line in enumerate(lines) if "unsafe_experts" in line)
    assert lines[at].split() == ["★", "unsafe_experts", "95.0", "▲", "0.8", "1.7", "60.5"]
    assert lines[at + 1].split() == ["91.0–99.0", "0.0–4.8", "0.0–5.7", "55.5–65.5"]


@pytest.mark.parametrize("width", [40, 50, 64, 80, 85, 99, 100, 200])
def test_no_line_is_wider_than_the_terminal_and_no_figure_is_lost(working, width):
    lines = printed(working, width)
    assert max(len(line) for line in lines) <= width
    text = "\n".join(board(lines))
    for figure in ("100.0", "96.0–100.0", "16.7", "12.7–20.7", "60.5", "55.5–65.5"):
        assert figure in text


def test_many_tasks_are_split_over_blocks_that_repeat_the_names(make_summary, make_variant, make_result):
    tasks = {f"harmful_set_{index}": make_result("", 60, kind="harmful") for index in range(12)}
    lines = board(printed(make_summary({"base": make_variant(tasks)}), 80))
    assert max(len(line) for line in lines) <= 80
    assert all(f"harmful_set_{index}" in "\n".join(lines) for index in range(12))
    blocks = len([line for line in lines if "────" in line])
    assert blocks > 1
    assert len([line for line in lines if line.strip().startswith("base")]) == blocks


def test_skipped_variant_is_in_the_table_and_its_reason_below(working):
    lines = printed(working, 100)
    assert any(line.split() == ["all_experts", *["skipped"] * 4] for line in lines)
    assert "• all_experts was skipped: needs 210 GiB of GPU memory, 78 GiB are there." in "\n".join(lines)


def test_the_finding_comes_last_with_three_cards_the_claim_and_the_doubt(make_draws):
    text = " ".join(" ".join(printed(make_draws(range(30, 49)), 100)).split())
    headline = text.index("unsafe_experts refuses more harmful prompts than base; no cost was measured.")
    assert text.index("▲ ▼ significantly above or below base") < headline
    assert (
        headline
        < text.index("Did harm fall?")
        < text.index("Does choosing experts matter? Choosing experts by")
    )
    assert "yes: +45.0 points" in text
    assert "19 random draws: 25.0%" in text
    assert text.count("not measured") == 2


@pytest.mark.parametrize("n", [3, 8, 25])
def test_80_columns_crop_nothing_of_many_variants(n, make_summary, make_variant, make_test):
    names = [
        "base",
        "unsafe_experts",
        *(f"a_baseline_with_a_long_name_{index:02d}" for index in range(n - 2)),
    ]
    tasks = ("demo_harmful", "advbench", "demo_benign", "demo_twins")
    summary = make_summary(
        {
            name: make_variant(
                {task: (7 * index + 13 * place) % 121 for place, task in enumerate(tasks)},
                {"piqa": 0.5 + index / 100},
            )
            for index, name in enumerate(names)
        },
        [
            make_test("unsafe_experts", "base", task, difference, 0.001)
            for task, difference in zip(tasks, (0.5, 0.3, 0.01, 0.2), strict=True)
        ],
    )
    text = "\n".join(printed(summary, 80))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    table = text[: text.index("▲ ▼")]
    for row in build(summary).rows:
        assert all(part in table for part in re.split(r"(?<=_)", row.variant))
        for cell, column in zip(row.cells, build(summary).columns, strict=True):
            assert column.show(cell.value) in table.split()
            assert f"{column.show(cell.low)}–{column.show(cell.high)}" in table.split()
    check_snapshot(f"terminal-{n}", text + "\n")


def test_names_are_not_read_as_rich_markup(make_summary, make_variant):
    summary = make_summary(
        {
            "[red]x[/red]": make_variant({"advbench": 3}),
            "[/]": make_variant(skipped="[bold]no[/bold] \x1b[2J"),
        },
        model="[link=file:///]m",
        intervention="[red]x[/red]",
    )
    text = "\n".join(printed(summary, 100))
    assert "[red]x[/red]" in text
    assert "[link=file:///]m" in text
    assert "[bold]no[/bold] ⟨U+001B⟩[2J" in text
    assert "\x1b" not in text


def test_run_without_any_task_prints(make_summary, make_variant):
    assert any("base" in line for line in printed(make_summary({"base": make_variant()}), 80))


def test_picture_is_small_whole_and_asks_nothing_of_any_server(working, tmp_path):
    path = tmp_path / "board.svg"
    export_svg(working, path)
    picture = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 40_000
    assert not re.findall(r"url\([\"']?http|href=|@import|@font-face", picture)
    shown = "".join(ElementTree.fromstring(picture).itertext()).replace("\xa0", " ")
    assert "unsafe_experts" in shown
    assert "95.0" in shown
    assert "adjusted p < 0.001" in shown


def test_picture_is_the_same_each_time(working, tmp_path):
    export_svg(working, tmp_path / "a.svg")
    export_svg(working, tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_run_folder_that_cannot_be_written_is_reported_with_a_warning(small_run, tmp_path, capsys):
    """A folder in the place of a report stands for a disk that is read-only, which root could write to."""
    import shutil

    from harness.cli.main import main

    run = shutil.copytree(
        small_run, tmp_path / "run", ignore=shutil.ignore_patterns("model", "delta.safetensors")
    )
    (run / "report.md").unlink()
    (run / "report.md").mkdir()
    RunFolder(run).write_manifest()
    assert main(["report", str(run)]) == 0
    said = capsys.readouterr()
    assert "unsafe_experts" in said.out
    assert f"warning: {run} cannot be written" in said.err

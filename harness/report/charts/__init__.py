"""Charts as inline SVG, for reports, leaderboards and `analyze`. Colours are classes of reports/style.css."""

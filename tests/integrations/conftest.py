"""The browser of the report's tests."""

from report.browser.conftest import browser

__all__ = ["browser"]

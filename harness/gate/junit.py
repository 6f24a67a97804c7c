"""A check as JUnit XML, as CI systems read it: one test case per gate.

FAIL is a failure. INCONCLUSIVE is an error: the gate did not come to an outcome, and a job that only counts
failures must not take it for a pass.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

from harness.gate.check import Checked
from harness.gate.decision import Outcome
from harness.report.words import visible

_TAGS: dict[Outcome, str] = {"PASS": "system-out", "FAIL": "failure", "INCONCLUSIVE": "error"}
# XML 1.0 knows no way to write these.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(checked: Checked) -> str:
    """Return the document."""
    outcomes = [decision.outcome for decision in checked.decisions]
    counts = {
        "tests": str(len(outcomes)),
        "failures": str(outcomes.count("FAIL")),
        "errors": str(outcomes.count("INCONCLUSIVE")),
    }
    root = ElementTree.Element("testsuites", {"name": "harness check", **counts})
    suite = ElementTree.SubElement(root, "testsuite", {"name": _text(checked.run_id), **counts, "time": "0"})
    for decision in checked.decisions:
        names = {"classname": f"harness.check.{_text(decision.variant)}", "name": _text(decision.gate.name)}
        case = ElementTree.SubElement(suite, "testcase", {**names, "time": "0"})
        message = _text(f"required: {decision.required}; seen: {decision.seen}")
        about = {} if decision.outcome == "PASS" else {"message": message, "type": decision.outcome}
        ElementTree.SubElement(case, _TAGS[decision.outcome], about).text = message
    ElementTree.indent(root)
    document: bytes = ElementTree.tostring(root, "utf-8", xml_declaration=True)
    return document.decode("utf-8") + "\n"


def _text(text: str) -> str:
    return _NOT_XML.sub("\ufffd", visible(text))

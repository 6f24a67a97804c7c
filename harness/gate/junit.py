"""A check as JUnit XML, as CI systems read it: a test case a gate.

FAIL is a failure. INCONCLUSIVE is an error: the gate did not come to a verdict, and a job that only counts
failures must not take it for a pass.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from xml.etree import ElementTree

from harness.base.files import write_text
from harness.gate.check import Checked
from harness.report.words import visible

# XML 1.0 knows no way to write these.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(checked: Checked) -> str:
    """Return the document."""
    verdicts = [decision.verdict for decision in checked.decisions]
    counts = {
        "tests": str(len(verdicts)),
        "failures": str(verdicts.count("FAIL")),
        "errors": str(verdicts.count("INCONCLUSIVE")),
    }
    root = ElementTree.Element("testsuites", {"name": "harness check", **counts})
    suite = ElementTree.SubElement(root, "testsuite", {"name": _text(checked.run_id), **counts, "time": "0"})
    for decision in checked.decisions:
        about = {"classname": f"harness.check.{_text(decision.variant)}", "name": _text(decision.gate.name)}
        case = ElementTree.SubElement(suite, "testcase", {**about, "time": "0"})
        message = _text(f"required: {decision.required}; seen: {decision.seen}")
        if decision.verdict != "PASS":
            tag = "failure" if decision.verdict == "FAIL" else "error"
            found = ElementTree.SubElement(case, tag, {"message": message, "type": decision.verdict})
            found.text = message
        else:
            ElementTree.SubElement(case, "system-out").text = message
    ElementTree.indent(root)
    out = io.BytesIO()
    ElementTree.ElementTree(root).write(out, encoding="utf-8", xml_declaration=True)
    return out.getvalue().decode("utf-8") + "\n"


def write_junit(checked: Checked, path: Path) -> None:
    """Write the document as a whole file."""
    write_text(path, junit_xml(checked))


def _text(text: str) -> str:
    return _NOT_XML.sub("\ufffd", visible(text))

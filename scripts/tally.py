"""Add up the JUnit files of a folder and print a line: how many tests passed, failed and were skipped.

Ends with status 1 if any failed or none passed: a run without tests is no success.
"""

import sys
from pathlib import Path
from xml.etree import ElementTree as ET


def main(folder: str) -> int:
    """Print the sum of *folder*'s files and return the exit status."""
    total = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    for path in sorted(Path(folder).glob("*.xml")):
        for suite in ET.parse(path).iter("testsuite"):  # noqa: S314  # written by our own pytest
            for name in total:
                total[name] += int(suite.get(name, 0))
    failed = total["failures"] + total["errors"]
    passed = total["tests"] - failed - total["skipped"]
    print(f"{passed} passed, {failed} failed, {total['skipped']} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

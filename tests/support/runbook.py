"""The runbook of a README: what it says to words of the log."""

import re
from pathlib import Path


def entries(path: Path) -> dict[str, str]:
    """What the runbook says to the words in its headings."""
    found: dict[str, str] = {}
    written = re.sub(r"^\{%.*?%\}\n", "", path.read_text(), flags=re.MULTILINE)
    written = written.split("\n## Runbook", 1)[-1]
    for part in re.split("^### ", written, flags=re.MULTILINE)[1:]:
        heading, text = part.split("\n", 1)
        text = text.split("\n## ")[0].strip()
        found |= dict.fromkeys(re.findall("`(.+?)`", heading), text)
    return found

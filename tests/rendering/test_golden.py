"""Two whole renderings are committed: their diff shows the effect of a change."""

from pathlib import Path

import pytest

from tests.support.rendering import files
from tools.golden import GOLDEN, RENDERINGS, golden


@pytest.mark.parametrize("name", RENDERINGS)
def test_rendering_is_the_golden_one(template: Path, tmp_path: Path, name: str) -> None:
    """Fails after every change: run `make golden` and review the diff."""
    assert golden(template, tmp_path, name) == files(GOLDEN / name)

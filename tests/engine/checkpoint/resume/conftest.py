"""A run that was stopped, for the tests of what may change when it is resumed."""

from __future__ import annotations

from typing import Any

import pytest
from recipe_changes import train


@pytest.fixture
def stopped(runner: Any) -> dict[str, Any]:
    """A run that was stopped after step 3 of 6, with a checkpoint at step 2; its recipe."""
    recipe: dict[str, Any] = runner.recipe(train(steps=6, checkpoint={"every": 2}))
    runner.cut(recipe, "run", 3)
    return recipe

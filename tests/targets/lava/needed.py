"""What tests that run Lava need: its environment, which `make lava-env` makes."""

import pytest

from unscan.runtime.lava.environment import environment

needs_lava = pytest.mark.skipif(
    bool(environment().problem()), reason="Lava's environment is missing: make lava-env"
)

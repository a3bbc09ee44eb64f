"""How large LIBERO's task suites are. Light (no torch, and no LIBERO, which takes seconds to import)."""

from __future__ import annotations

SUITE_SIZES = {"libero_spatial": 10, "libero_object": 10, "libero_goal": 10, "libero_10": 10}  # [tasks]
INIT_STATES_PER_TASK = 50

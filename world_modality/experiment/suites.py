"""How large LIBERO's task suites and its robot's vectors are. Light: no torch, and no LIBERO, which imports slowly."""

from __future__ import annotations

SUITE_SIZES = {"libero_spatial": 10, "libero_object": 10, "libero_goal": 10, "libero_10": 10}  # [tasks]
INIT_STATES_PER_TASK = 50
STATE_DIM = 8  # end effector: 3 of position, 3 of axis-angle; 2 of the gripper
ACTION_DIM = 7  # 6 of the end effector, 1 of the gripper; each in [-1, 1]

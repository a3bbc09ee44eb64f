"""The figures of a decision."""

import pytest

from tests.unit.decision.samples import (
    wrist_verdict,
)
from world_modality.experiment.sections import Figures
from world_modality.report.figures import plot_success, save

LOOK = Figures(task_colors=["#1f77b4"], pickup_color="#000000")


def test_the_success_figure_has_the_same_bytes_every_time(tmp_path):
    verdict = wrist_verdict(tmp_path)
    made = [tmp_path / f"{number}.svg" for number in range(2)]
    for path in made:
        save(plot_success(verdict, LOOK), path)
    assert made[0].read_bytes() == made[1].read_bytes()


def test_a_figure_of_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"written as \.svg"):
        save(plot_success(wrist_verdict(tmp_path), LOOK), tmp_path / "success.pdf")

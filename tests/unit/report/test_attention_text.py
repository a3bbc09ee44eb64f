"""What `attention.txt` says of a report, and the figure of the same report."""

import numpy as np
import pytest

from tests.unit.examination.samples import FRONT, WRIST, chunk, table
from world_modality.examination.attention_patterns import AttentionReport, compare
from world_modality.experiment.sections import Figures
from world_modality.report.attention_text import WIDTH, render
from world_modality.report.figures import plot_attention, save


@pytest.fixture
def report():
    """Front and wrist in training and at rollout; at rollout the wrist option attends later."""
    tables = [
        table(
            *(chunk([[[0.4 - p - 0.01 * e, 0.6 + p + 0.01 * e]]], e) for e in range(4)),
            option=option,
            where=where,
            cameras=cameras,
        )
        for option, cameras, p in (("E2", FRONT, 0.0), ("A", WRIST, 0.2))
        for where in ("training", "rollout")
    ]
    return compare(tables, "E2", "A")


def test_the_text_names_the_cameras_and_says_how_they_differ(report):
    text = render(report)
    words = " ".join(text.split())
    assert "At rollout E2 (front) attends" in words
    assert (
        "At rollout, 4 paired episodes: A (wrist) attends to later frames and more selectively than E2 (front)" in words
    )
    assert "Mean k +0.20" in words
    assert "20.0% of the attention goes elsewhere" in words
    assert "One training seed: this compares two checkpoints" in words
    assert max(map(len, text.splitlines())) <= WIDTH
    assert report == AttentionReport.model_validate_json(report.model_dump_json())


def test_the_text_says_when_only_one_camera_was_run(report):
    front = [pattern for pattern in report.patterns if pattern.table.option == "E2"]
    words = " ".join(render(report.model_copy(update={"patterns": front, "differences": []})).split())
    assert "Of E2 and A, only E2 (front) was measured: whether the wrist camera changes the attention is open." in words


def test_a_long_horizon_fits_into_the_text():
    weights = np.full((12, 16, 64), 1 / 64)
    report = compare([table(chunk(weights), shape=weights.shape)], "E2", "A")
    assert report.patterns[0].overall.mean_k == pytest.approx(32.5)
    assert report.patterns[0].overall.evenness == pytest.approx(1)
    text = render(report)
    assert "k=1 " in text
    assert "k=64" in text
    assert max(map(len, text.splitlines())) <= WIDTH


def test_a_shut_gate_is_told():
    shut = compare([table(chunk([[[0.5, 0.5]]], gate=1e-5))], "E2", "A")
    assert "The gate of E2 (front) is shut" in render(shut)


def test_the_figure_of_one_report_has_the_same_bytes_twice(report, tmp_path):
    look = Figures(task_colors=["#1f77b4"], pickup_color="#000000")
    for name in ("a.svg", "b.svg"):
        save(plot_attention(report, look), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()

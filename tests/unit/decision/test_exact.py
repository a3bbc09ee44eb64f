"""What both exact tests share: where a nuisance is looked for."""

import numpy as np
import pytest

from world_modality.decision.exact import possible_shares, share_grid
from world_modality.decision.paired import PairedTail, score_limit


@pytest.mark.parametrize("pairs", [5, 20, 100, 500])
def test_no_probability_peaks_between_two_points_of_the_grid(pairs):
    fine = np.linspace(0, 1, 4001)
    for wins, losses in ((0, 1), (0, pairs // 4), (pairs // 8, pairs // 4), (pairs // 3, pairs // 2)):
        tail = PairedTail.below(score_limit(wins, losses, pairs, 1.645), pairs, 1.645)
        for difference in (-0.1, 0.0, 0.05):
            found = tail.chances(difference, share_grid(pairs)).max()
            assert found == pytest.approx(tail.chances(difference, fine).max(), abs=5e-4), (wins, losses, difference)


def test_the_range_of_a_nuisance_holds_the_share_that_was_seen():
    grid = share_grid(40)
    for count in (0, 1, 17, 40):
        kept = grid[possible_shares(count, 40, grid, 1e-4)]
        assert kept[0] <= count / 40 <= kept[-1]
        assert len(kept) < len(grid)

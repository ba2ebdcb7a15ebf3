"""The figure of a refinement: plans in their order, and those that a linac delivers after them."""

from __future__ import annotations

import numpy as np

from radplan.viz.refinement import draw_refinement


def test_delivered_plans_come_after_the_others_with_a_line_of_their_own():
    ax = draw_refinement(
        [10.0, 30.0, 20.0], ["scorecard_initial", "ascent", "ascent"], 50.0, delivered=[5.0, 25.0, 15.0]
    )
    labels = [line.get_label() for line in ax.get_lines()]
    assert labels.count("delivered") == 1
    delivered = ax.get_lines()[labels.index("delivered")]
    np.testing.assert_array_equal(delivered.get_xdata(), [4, 5, 6])
    np.testing.assert_array_equal(delivered.get_ydata(), [5.0, 25.0, 15.0])
    np.testing.assert_array_equal(ax.get_lines()[labels.index("delivered") - 1].get_ydata(), [5.0, 25.0, 25.0])
    assert "delivered" not in [line.get_label() for line in draw_refinement([1.0], ["ascent"], 50.0).get_lines()]

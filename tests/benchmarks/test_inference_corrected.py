from benchmarks.inference_corrected import coverage, false_differences


def test_the_simulation_finds_intervals_that_cover_and_the_same_by_the_same_seed():
    found = coverage(400, seed=5)
    assert found["below_90"] == 0
    assert 0.94 < found["mean"] < 0.98
    assert found["largest_bias"] < 0.02
    assert coverage(400, seed=5) == found


def test_with_4_labels_intervals_are_wider():
    few, many = (coverage(100, seed=1, labels=labels)["by_answers"][132]["width"] for labels in (4, 50))
    assert few > 1.5 * many


def test_a_judge_with_one_error_is_seldom_said_to_err_differently():
    assert max(false_differences(20, seed=2).values()) <= 0.2

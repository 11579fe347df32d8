from benchmarks.transitions import measure


def test_both_ways_draw_the_same_curves() -> None:
    answer = measure(["lenet", "lenet"], images=2, steps=2, sample=1, repetitions=2)
    assert answer["max_difference"] < 1e-4
    assert answer["ratio"] > 0

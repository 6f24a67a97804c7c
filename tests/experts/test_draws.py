"""Random draws are uniform among the sets that match the selection, and the number of such sets is right."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chisquare

from harness.experts import use_band as bands
from harness.experts.draws import Selected, use_of
from harness.experts.select import ExpertSelection
from harness.experts.swaps import walk
from harness.models.moe import Expert


def selected(use, chosen) -> Selected:
    """Experts of layers 3, 4, ... of a model with such uses; `chosen` has (layer, expert) pairs."""
    uses = {Expert(3 + row, i): float(u) for row, layer in enumerate(use) for i, u in enumerate(layer)}
    experts = tuple(Expert(3 + row, i) for row, i in chosen)
    return Selected(ExpertSelection("risk_diff", "decision", experts), uses, seed=1)


def all_sets(use, per_layer):
    """Every set with so many experts per layer, with its use."""
    layers = [
        itertools.combinations([Expert(3 + row, i) for i in range(len(use[row]))], k)
        for row, k in enumerate(per_layer)
    ]
    for parts in itertools.product(*layers):
        members = tuple(itertools.chain(*parts))
        yield members, sum(use[expert.layer - 3][expert.expert] for expert in members)


SMALL = [[9, 7, 4, 3, 2, 1], [10, 6, 5, 2, 2, 1]]


def test_draws_are_uniform_among_the_sets_of_matching_use():
    world = selected(SMALL, [(0, 0), (0, 3), (1, 1), (1, 2)])  # 9 + 3 + 6 + 5 = 23
    drawn = Counter(world.draw("use", seed).experts for seed in range(900))
    use_of_set = dict(all_sets(SMALL, [2, 2]))
    uses = {use_of_set[members] for members in drawn}
    matching = [members for members, use in use_of_set.items() if min(uses) <= use <= max(uses)]
    assert uses <= {21, 22, 23, 24, 25}
    assert np.mean([use_of_set[members] for members in matching]) == pytest.approx(23, abs=0.7)
    assert world.sets("use").log10 == pytest.approx(math.log10(len(matching)))
    assert world.sets("use").is_counted
    assert len(matching) > 15
    assert chisquare([drawn[members] for members in matching]).pvalue > 0.001


@pytest.mark.parametrize(("least", "most"), [(1, 4), (14, 17)])
def test_matching_sets_carry_the_selections_use_on_average(least, most):
    # Nearly all sets carry less than a selection of the most used, and most carry more than one of the little used:
    # uniform draws within 10 % of its use would, too.
    use = np.random.default_rng(0).gamma(0.5, size=(4, 32))
    world = selected(use, [(row, i) for row in range(4) for i in np.argsort(-use[row])[least:most]])
    shares = [world.use_share(world.draw("use", seed).experts) for seed in range(200)]
    assert all(0.9 <= share <= 1.1 for share in shares)
    assert np.mean(shares) == pytest.approx(1, abs=0.01)
    assert np.mean([share >= 1 for share in shares]) > 0.2


def test_in_a_model_of_48_layers_of_128_experts_one_walk_forgets_where_it_began():
    use = np.random.default_rng(0).gamma(0.5, size=(48, 128))
    start = np.random.default_rng(1).permutation(np.argsort(-use.ravel())[:600])[:50].tolist()
    target, flat = float(use.ravel()[start].sum()), use.ravel().tolist()
    layers, chosen = np.unique(np.array(start) // 128, return_counts=True)
    band = bands.use_band(use[layers], chosen.tolist(), target)

    def go(members, seed):
        return walk(members, flat, 128, band.low, band.high, seed)

    once = [go(start, seed) for seed in range(30)]
    longer = [go(go(go(members, 100), 200 + seed), 300 + seed) for seed, members in enumerate(once)]

    def overlap(sets):
        return np.mean([len({*start} & {*members}) for members in sets])

    # The standard error of the difference is about 0.6; at the start all 50 are shared.
    assert overlap(once) == pytest.approx(overlap(longer), abs=2)
    # What the count of sets says, independently of any walk: their mean use is the selection's.
    for sets in (once, longer):
        assert np.mean([sum(flat[i] for i in members) / target for members in sets]) == pytest.approx(
            1, abs=0.005
        )


@pytest.mark.parametrize("place", [0.05, 0.3, 0.6, 0.9, 0.995])
def test_an_estimated_number_of_sets_is_near_the_counted_one(place, monkeypatch):
    use = np.random.default_rng(5).gamma(0.7, size=(3, 8))
    totals = np.sort([total for _, total in all_sets(use, [2, 3, 2])])
    target = float(totals[int(place * len(totals))])
    counted = bands.use_band(use, [2, 3, 2], target)
    assert counted.is_counted
    within = (totals >= counted.low) & (totals <= counted.high)
    assert counted.log10_sets == pytest.approx(math.log10(within.sum()))
    monkeypatch.setattr(bands, "_COUNTABLE", 1)
    estimated = bands.use_band(use, [2, 3, 2], target)
    assert not estimated.is_counted
    assert estimated.log10_sets == pytest.approx(counted.log10_sets, abs=0.02)
    assert estimated.low == pytest.approx(counted.low, rel=0.005)
    assert estimated.high == pytest.approx(counted.high, rel=0.005)


def test_where_no_other_set_has_so_much_use_every_draw_is_the_selection():
    world = selected([[9, 1, 1, 1], [8, 1, 1, 1]], [(0, 0), (1, 0)])
    assert {world.draw("use", seed).experts for seed in range(5)} == {world.selection.experts}
    assert world.sets("use").log10 == 0


@pytest.mark.parametrize("match", ["use", "layer"])
def test_a_draw_has_as_many_experts_per_layer_and_depends_on_its_seed_alone(match):
    use = np.random.default_rng(2).random((3, 16))
    world = selected(use, [(0, 1), (0, 2), (2, 3), (0, 9)])
    again = selected(use, [(0, 9), (2, 3), (0, 2), (0, 1)])
    drawn = world.draw(match, 7)
    assert {layer: len(experts) for layer, experts in drawn.by_layer().items()} == {3: 3, 5: 1}
    assert len(set(drawn.experts)) == 4
    assert (drawn.method, drawn.phase, drawn.match) == ("random", "decision", match)
    assert again.draw(match, 7) == drawn
    assert world.draw(match, 8) != drawn


def test_matched_by_layer_alone_every_expert_is_as_likely():
    world = selected([[100, 1, 1, 1]], [(0, 0)])
    drawn = Counter(world.draw("layer", seed).experts[0].expert for seed in range(400))
    assert chisquare([drawn[i] for i in range(4)]).pvalue > 0.001
    assert world.sets("layer") == (pytest.approx(math.log10(4)), True)


def test_the_most_used_are_taken_per_layer_and_ties_by_number():
    world = selected(SMALL, [(0, 5), (1, 0), (1, 5), (1, 4)])
    assert world.most_used().experts == ((3, 0), (4, 0), (4, 1), (4, 2))
    tied = selected([[1, 5, 5, 5]], [(0, 0), (0, 1)])
    assert tied.most_used().experts == ((3, 1), (3, 2))


def test_beside_the_selection_a_choice_has_an_overlap_and_a_share_of_its_use():
    world = selected(SMALL, [(0, 0), (0, 3), (1, 1), (1, 2)])
    assert world.beside(world.most_used()) == {
        "overlap_with_selection": 2,
        "use_share": pytest.approx((9 + 7 + 10 + 6) / 23),
        "match": None,
        "log10_sets": None,
        "sets_are_counted": None,
    }
    assert world.beside(world.selection)["use_share"] == 1


def test_use_is_that_on_safe_prompts_plus_that_on_unsafe_ones_in_the_phase():
    table = pd.DataFrame(
        {
            "phase": ["all", "all", "prompt"],
            "layer": [1, 1, 1],
            "expert": [0, 1, 0],
            "a_safe_n": [0.25, 0.5, 9.0],
            "a_unsafe_n": [0.5, 0.125, 9.0],
        }
    )
    assert use_of(table, "all") == {(1, 0): 0.75, (1, 1): 0.625}

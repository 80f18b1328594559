import numpy as np
import pytest
import torch

from ecg_transformers.modeling.masking import (
    DrawKeys,
    RecordUniforms,
    hidden_count_bounds,
    keyed_generator,
    sample_multi_block_mask,
    sample_published_segment_masks,
    sample_random_mask,
    sample_segment_masks,
)

# Name of the golden draws: columns, smallest block, range of the visible fraction.
SEGMENTS = {
    "pretrain_default_N200": (200, 10, (0.15, 0.25)),
    "demo_N36": (36, 3, (0.2, 0.5)),
    "N20_mb3": (20, 3, (0.15, 0.25)),
    "crop50_mb10": (50, 10, (0.15, 0.25)),
}


@pytest.mark.parametrize("key", ["random_0.6_0.7", "random_0.7_0.8", "block_0.175_0.225", "block_0.15_0.2"])
def test_a_thousand_masks_equal_the_published_ones_bit_for_bit(golden, key):
    expected = golden("kim_masks")["kim/" + key].bool()
    law, low, high = key.split("_")
    ratio_range, generator = (float(low), float(high)), torch.Generator().manual_seed(0)
    for row in expected:
        if law == "random":
            mask = sample_random_mask(50, ratio_range, generator)
        else:
            mask = sample_multi_block_mask(50, ratio_range, 4, generator, spare_last_column=True)
        assert torch.equal(mask, row)


def test_blocks_reach_the_last_column_unless_parity_is_asked_for():
    def ever_hidden(spare_last_column):
        generator = torch.Generator().manual_seed(0)
        masks = [
            sample_multi_block_mask(50, (0.175, 0.225), 4, generator, spare_last_column=spare_last_column)
            for _ in range(500)
        ]
        return torch.stack(masks).any(dim=0)

    assert ever_hidden(False).all()
    assert not ever_hidden(True)[-1] and ever_hidden(True)[:-1].all()


def test_bounds_hold_the_counts_that_are_drawn():
    generator = torch.Generator().manual_seed(0)
    counts = {int(sample_random_mask(50, (0.6, 0.7), generator).sum()) for _ in range(500)}
    assert (min(counts), max(counts)) == hidden_count_bounds(50, (0.6, 0.7)) == (30, 34)


def test_the_same_key_gives_the_same_mask_and_another_key_another():
    def draw(*key):
        return sample_random_mask(50, (0.6, 0.7), keyed_generator(*key))

    assert torch.equal(draw(0, "mask", 7), draw(0, "mask", 7))
    assert not torch.equal(draw(0, "mask", 7), draw(0, "mask", 8))
    assert not torch.equal(draw(0, "mask", 7), draw(1, "mask", 7))


@pytest.mark.parametrize("key", SEGMENTS)
def test_a_thousand_segment_masks_equal_the_published_ones_bit_for_bit(golden, key):
    num_columns, min_block, keep_range = SEGMENTS[key]
    random_state = np.random.RandomState(0)
    for row in golden("weimann_masks")["weimann/" + key].bool():
        mask = sample_published_segment_masks(num_columns, keep_range, min_block, 1, random_state)
        assert torch.equal(mask[0], row)


def test_the_records_of_a_batch_follow_each_other_in_the_published_stream(golden):
    masks = sample_published_segment_masks(200, (0.15, 0.25), 10, 8, np.random.RandomState(3))
    hidden, visible = (torch.nonzero(part)[:, 1].view(8, -1) for part in (masks, ~masks))
    assert torch.equal(hidden, golden("weimann_masks")["weimann/batch8_seed3_mask_predictor"])
    assert torch.equal(visible, golden("weimann_masks")["weimann/batch8_seed3_mask_encoder"])


def keys_of(*records):
    return DrawKeys(seed=0, step=0, epoch=0, sample_ids=records)


def draw_segments(key, num_draws):
    num_columns, min_block, (least, most) = SEGMENTS[key]
    masks = [
        sample_segment_masks(
            num_columns,
            (1 - most, 1 - least),
            min_block,
            keyed_generator("ratio", draw),
            keys_of(draw).uniforms("record"),
        )
        for draw in range(num_draws)
    ]
    return torch.cat(masks)


def runs(masks):
    """Number of hidden runs of each mask, and the length of every run."""
    edges = torch.nn.functional.pad(masks.int(), (1, 1)).diff(dim=1)
    starts, ends = (torch.nonzero(edges == sign) for sign in (1, -1))
    return torch.bincount(starts[:, 0], minlength=len(masks)), ends[:, 1] - starts[:, 1]


@pytest.mark.parametrize("key", SEGMENTS)
def test_segments_drawn_together_have_the_statistics_of_the_published_ones(golden, golden_facts, key):
    published = golden_facts("weimann_masks")["stats"]["weimann/" + key]
    draws = published["draws"]
    masks = draw_segments(key, draws)
    counts = masks.sum(dim=1)
    assert published["min_masked"] <= counts.min() and counts.max() <= published["max_masked"]
    num_runs, lengths = runs(masks)
    assert lengths.min() >= published["run_len_min"]
    reference_runs, reference_lengths = runs(golden("weimann_masks")["weimann/" + key].bool())
    for ours, reference in ((counts, None), (num_runs, reference_runs), (lengths, reference_lengths)):
        expected = published["mean_masked_count"] if reference is None else reference.double().mean().item()
        error = ours.double().std().item() * (2 / draws) ** 0.5  # of the difference of two samples of this size
        assert ours.double().mean().item() == pytest.approx(expected, abs=4 * error)
    frequency = torch.tensor(published["per_position_freq"])
    error = (2 * frequency * (1 - frequency) / draws).sqrt()
    deviations = (masks.float().mean(dim=0) - frequency) / error.clamp(min=1e-3)
    assert deviations.abs().max() < 5 and deviations.square().mean() < 2.5
    for number, count in published["hist_runs"].items():
        share = count / draws
        ours = (num_runs == int(number)).double().mean().item()
        assert ours == pytest.approx(share, abs=4 * (2 * share * (1 - share) / draws) ** 0.5 + 2 / draws)


def test_the_mask_of_a_record_depends_on_its_own_key_and_the_shared_ratio_alone():
    def draw(records, ratio="ratio"):
        return sample_segment_masks(200, (0.75, 0.85), 10, keyed_generator(ratio), keys_of(*records).uniforms("mask"))

    together = draw(range(6))
    assert len(set(together.sum(dim=1).tolist())) == 1
    assert torch.equal(draw([4, 1]), together[[4, 1]])
    assert not torch.equal(together[0], together[1])
    counts = {int(draw([0], ratio).sum()) for ratio in range(400)}
    assert counts == set(range(150, 170))  # what the authors' law hides of 200


def test_fewer_hidden_columns_than_the_smallest_block_are_one_short_block():
    for hidden, masks in (
        (9, sample_published_segment_masks(20, (0.55, 0.55), 10, 200, np.random.RandomState(0))),
        (9, sample_segment_masks(20, (0.45, 0.45), 10, keyed_generator(0), keys_of(*range(200)).uniforms("mask"))),
    ):
        num_runs, lengths = runs(masks)
        assert (num_runs == 1).all() and (lengths == hidden).all()
        assert masks.any(dim=0).all()  # anywhere


def test_numbers_by_counter_are_those_of_splitmix64_written_out():
    def numbers(key, count):
        state, wrap = key, 2**64 - 1
        for _ in range(count):
            state = (state + 0x9E3779B97F4A7C15) & wrap
            mixed = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & wrap
            mixed = ((mixed ^ mixed >> 27) * 0x94D049BB133111EB) & wrap
            yield ((mixed ^ mixed >> 31) >> 11) / 2**53

    keys = [1, 2**63 + 17]
    drawn = RecordUniforms(np.array(keys, dtype=np.uint64)).draw(0, 5)
    assert drawn.T.tolist() == [list(numbers(key, 5)) for key in keys]
    assert np.array_equal(RecordUniforms(np.array(keys, dtype=np.uint64)).draw(2, 3), drawn[2:])


def test_numbers_of_records_differ_by_seed_epoch_purpose_and_record_and_are_uniform():
    def draw(seed=0, epoch=0, purpose="mask", records=range(2000)):
        return DrawKeys(seed, 0, epoch, tuple(records)).uniforms(purpose).draw(0, 20)

    first = draw()
    for other in (draw(seed=1), draw(epoch=1), draw(purpose="views"), draw(records=range(2000, 4000))):
        correlations = np.corrcoef(first.ravel(), other.ravel())[0, 1]
        assert abs(correlations) < 5 / first.size**0.5
    assert np.array_equal(draw(records=[7, 3]), first[:, [7, 3]])
    counts = np.histogram(first, bins=64, range=(0, 1))[0] - first.size / 64
    assert (counts**2).sum() / (first.size / 64) < 63 + 5 * (2 * 63) ** 0.5  # chi-squared
    assert abs(np.corrcoef(first)[~np.eye(20, dtype=bool)]).max() < 5 / 2000**0.5

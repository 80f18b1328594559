import pytest
import torch

from ecg_transformers.modeling.masking import (
    hidden_count_bounds,
    keyed_generator,
    sample_multi_block_mask,
    sample_random_mask,
)


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


def test_drawing_masks_leaves_the_global_random_state_alone():
    before = torch.random.get_rng_state()
    sample_multi_block_mask(50, (0.175, 0.225), 4, keyed_generator(0))
    assert torch.equal(torch.random.get_rng_state(), before)

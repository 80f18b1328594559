import numpy as np
import pytest
import torch

from ecg_transformers.modeling.augmentation import (
    ViewDraws,
    ViewSettings,
    WindowViewSettings,
    corrected_views,
    draw_views,
    make_views,
    make_window_views,
    published_views,
)
from ecg_transformers.modeling.masking import DrawKeys

SETTINGS = {"num_views": 4, "augmentation": "corrected", "crop_scale": (0.5, 1.0), "amplitude_scale": (0.8, 1.2)}
SETTINGS |= {"noise_std": 0.05, "wander_amplitude": 0.05, "max_shift": 0.05, "lead_dropout": 0.0, "sampling_rate": 100}


def settings(**fields):
    return ViewSettings(**(SETTINGS | fields))


def generators(*records):
    return DrawKeys(seed=0, step=0, epoch=0, sample_ids=records).per_record("views")


def signals(batch=3, leads=2, samples=600):
    return torch.randn(batch, leads, samples, generator=torch.Generator().manual_seed(11))


def no_draws(batch=1, views=1, leads=2, samples=600, **given):
    """Draws that change nothing, but for what is given."""
    shape = (batch, views)
    draws = {
        "crop_start": torch.zeros(shape, dtype=torch.long),
        "crop_length": torch.full(shape, samples),
        "final_start": torch.zeros(shape, dtype=torch.long),
        "amplitude": torch.ones(shape),
        "noise": torch.zeros(*shape, leads, samples),
        "wander_amplitude": torch.zeros(shape),
        "wander_hz": torch.zeros(shape),
        "wander_phase": torch.zeros(shape),
        "shift": torch.zeros(shape, dtype=torch.long),
    }
    for name, value in given.items():
        draws[name] = torch.as_tensor(value).expand(
            draws[name].shape if name in draws else torch.as_tensor(value).shape
        )
    return ViewDraws(**draws)


def published_draws(seed, num_views, num_samples, num_leads, num_output):
    """The draws of the authors' pipeline from numpy's global stream, in its order (spec, section 2)."""
    stream = np.random.RandomState(seed)
    shape = (1, num_views)
    draws = no_draws(1, num_views, num_leads, num_samples)
    for name in ("crop_start", "crop_length", "final_start", "amplitude", "wander_amplitude", "wander_hz", "shift"):
        setattr(draws, name, getattr(draws, name).expand(shape).clone())
    draws.wander_phase = draws.wander_phase.clone()
    for view in range(num_views):
        length = max(int(num_samples * stream.uniform(0.5, 1.0)), num_output)
        if length < num_samples:
            draws.crop_start[0, view] = stream.randint(0, num_samples - length + 1)
        draws.crop_length[0, view] = length
        if stream.uniform() < 0.8:
            draws.amplitude[0, view] = stream.uniform(0.8, 1.2)
        if stream.uniform() < 0.5:
            noise = stream.randn(length, num_leads) * 0.05
            draws.noise[0, view, :, :length] = torch.from_numpy(noise.T)
        if stream.uniform() < 0.3:
            draws.wander_amplitude[0, view] = 0.05
            draws.wander_hz[0, view] = stream.uniform(0.1, 0.5)
            draws.wander_phase[0, view] = stream.uniform(0, 2 * np.pi)
        if stream.uniform() < 0.3:
            most = int(length * 0.05)
            draws.shift[0, view] = stream.randint(-most, most + 1)
        if length > num_output:
            draws.final_start[0, view] = stream.randint(0, length - num_output + 1)
    return draws


@pytest.mark.parametrize("num_output", [600, 300])
def test_seeded_views_equal_the_published_ones(golden, golden_facts, num_output):
    published = golden("lejepa_ecg_data")
    signal = published["x"].T[None].contiguous()
    draws = published_draws(42, 4, 600, 2, num_output)
    views = published_views(signal, draws, num_output)[0]
    tolerance = golden_facts("lejepa_ecg_data")["tolerance"]["seeded"]
    torch.testing.assert_close(views, published[f"views_crop{num_output}_seed42"], **tolerance, rtol=0)


def test_each_published_transform_equals_its_seeded_output(golden):
    published, atol = golden("lejepa_ecg_data"), 1e-6
    signal = published["x"].T[None].contiguous()

    def check(name, draws, num_output=None):
        view = published_views(signal, draws, num_output)[0, 0]
        torch.testing.assert_close(view, published[f"op_{name}_seed7"].T, atol=atol, rtol=0, msg=name)

    stream = np.random.RandomState(7)
    check("amp", no_draws(amplitude=float(stream.uniform(0.8, 1.2))))
    stream = np.random.RandomState(7)
    noise = torch.from_numpy(stream.randn(600, 2).T * 0.05).float()
    check("noise", no_draws(noise=noise))
    stream = np.random.RandomState(7)
    hz, phase = stream.uniform(0.1, 0.5), stream.uniform(0, 2 * np.pi)
    check("wander", no_draws(wander_amplitude=0.05, wander_hz=hz, wander_phase=phase))
    stream = np.random.RandomState(7)
    check("shift", no_draws(shift=int(stream.randint(-30, 31))))


def test_published_rates_and_ranges_are_those_of_two_thousand_views(golden_facts):
    facts = golden_facts("lejepa_ecg_data")["statistics"]
    draws = draw_views(settings(augmentation="published"), generators(*range(500)), 1, 5000)
    assert (draws.crop_length == 5000).all() and not draws.crop_start.any()  # the crop that does nothing
    sigma = (0.25 / 2000) ** 0.5
    applied = {
        "AmplitudeScale": draws.amplitude != 1,
        "GaussianNoise": draws.noise.flatten(2).any(dim=2),
        "BaselineWander": draws.wander_amplitude != 0,
    }
    for name, which in applied.items():
        assert which.float().mean().item() == pytest.approx(facts["apply_rate"][name], abs=3 * 2**0.5 * sigma), name
    shifts = draws.shift[draws.shift != 0]
    bounds = facts["TimeShift ratio .05"]
    assert bounds["min"] <= shifts.min() < -240 and 240 < shifts.max() <= bounds["max"]
    assert len(shifts) / 2000 == pytest.approx(facts["apply_rate"]["TimeShift"], abs=3 * 2**0.5 * sigma)
    amplitudes = draws.amplitude[applied["AmplitudeScale"]]
    assert 0.8 <= amplitudes.min() and amplitudes.max() <= 1.2
    assert amplitudes.std().item() == pytest.approx(facts["AmplitudeScale"]["std"], rel=0.05)
    noise = draws.noise[applied["GaussianNoise"]][:20]
    assert noise.std().item() == pytest.approx(facts["GaussianNoise"]["std_mean"], rel=0.01)


def test_a_crop_is_stretched_back_to_the_full_length():
    signal = signals(1)
    view = corrected_views(signal, no_draws(crop_start=100, crop_length=301), 100)[0, 0]
    positions = 100 + np.arange(600) * 300 / 599
    for lead in range(2):
        expected = np.interp(positions, np.arange(600), signal[0, lead].numpy())
        np.testing.assert_allclose(view[lead], expected, atol=2e-4)


@pytest.mark.parametrize("shift", [7, -7])
def test_a_shift_repeats_the_edge_and_the_published_one_wraps(shift):
    signal = signals(1)
    view = corrected_views(signal, no_draws(shift=shift), 100)[0, 0]
    places = (torch.arange(600) - shift).clamp(0, 599)
    torch.testing.assert_close(view, signal[0][:, places])
    wrapped = published_views(signal, no_draws(shift=shift))[0, 0]
    assert torch.equal(wrapped, signal[0].roll(shift, -1))


def test_the_wander_has_the_frequency_that_it_says():
    still = torch.zeros(1, 2, 1000)
    draws = no_draws(1, 1, 2, 1000, wander_amplitude=0.05, wander_hz=0.3, wander_phase=0.5)
    seconds = torch.arange(1000) / 100
    expected = 0.05 * torch.sin(2 * torch.pi * 0.3 * seconds + 0.5)
    torch.testing.assert_close(corrected_views(still, draws, 100)[0, 0], expected.expand(2, -1), atol=1e-6, rtol=0)
    published = published_views(still, draws)[0, 0, 0]  # at 100 Hz it is five times too slow
    assert (published.diff().sign().diff() != 0).sum() < (expected.diff().sign().diff() != 0).sum()


def test_amplitude_and_noise_act_as_drawn():
    signal, noise = signals(1), torch.randn(1, 1, 2, 600)
    expected = signal[:, None] * 1.1 + noise
    for law in (lambda s, d: corrected_views(s, d, 100), published_views):
        torch.testing.assert_close(law(signal, no_draws(amplitude=1.1, noise=noise)), expected)


def test_crops_keep_to_their_range_and_lie_inside_the_record():
    draws = draw_views(settings(crop_scale=(0.6, 0.8)), generators(*range(200)), 1, 500)
    assert draws.crop_length.min() >= 300 and draws.crop_length.max() <= 400
    ends = draws.crop_start + draws.crop_length
    assert draws.crop_start.min() == 0 and ends.max() == 500


@pytest.mark.parametrize("augmentation", ["corrected", "published"])
def test_the_views_of_a_record_do_not_depend_on_the_batch_around_it(augmentation):
    chosen = settings(augmentation=augmentation, lead_dropout=0.3)
    batch = signals(7)
    together = make_views(batch, chosen, generators(*range(7)))
    alone = make_views(batch[5:6], chosen, generators(5))
    assert torch.equal(together[5:6], alone)
    assert together.shape == (7, 4, 2, 600)
    assert all(not torch.equal(alone[0, i], alone[0, j]) for i in range(4) for j in range(i))
    with pytest.raises(ValueError, match="one generator for each of 7 records, got 2"):
        make_views(batch, chosen, generators(0, 1))
    assert not torch.equal(make_views(batch[5:6], chosen, generators(6)), alone)


def test_leads_are_dropped_in_a_fifth_of_the_views_and_never_all_of_them():
    chosen = settings(lead_dropout=0.6, noise_std=0.0, wander_amplitude=0.0)
    views = make_views(signals(300, 3, 50), chosen, generators(*range(300)))
    dropped = (views == 0).all(dim=-1)
    assert dropped.any(dim=-1).float().mean().item() == pytest.approx(0.2 * (1 - 0.4**3 - 0.6**3), abs=0.03)
    assert not dropped.all(dim=-1).any()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_the_same_but_for_the_values_of_the_noise():
    chosen = settings(noise_std=0.0, lead_dropout=0.3)
    on_cpu = make_views(signals(), chosen, generators(0, 1, 2))
    on_gpu = make_views(signals().cuda(), chosen, generators(0, 1, 2))
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, atol=1e-4, rtol=0)


UNALTERED = {"num_views": 3, "view_samples": 200, "time_warp": 0.0, "lead_gain_std": 0.0, "wander_amplitude": 0.0}
UNALTERED |= {"noise_std": 0.0, "time_mask_ratio": 0.0, "num_time_masks": 1, "lead_dropout": 0.0}
UNALTERED |= {"few_leads_chance": 0.0, "sampling_rate": 100}


def windows(records=(1, 2, 3), leads=4, **fields):
    settings = WindowViewSettings(**(UNALTERED | fields))
    return make_window_views(signals(len(records), leads), settings, generators(*records))


def test_an_unaltered_window_is_a_stretch_of_the_record():
    views, kept = windows()
    assert views.shape == (3, 3, 4, 200) and kept.all()
    for record, signal in enumerate(signals(3, 4)):
        stretches = signal.unfold(-1, 200, 1).transpose(0, 1)
        starts = [(stretches == view).all(dim=(1, 2)).nonzero().item() for view in views[record]]
        assert len(set(starts)) == 3


def test_warped_windows_run_faster_and_slower_within_bounds():
    ramp = torch.arange(600.0).expand(200, 1, -1)
    settings = WindowViewSettings(**(UNALTERED | {"num_views": 1, "time_warp": 0.2}))
    views, _ = make_window_views(ramp, settings, generators(*range(200)))
    slopes = views.diff(dim=-1)
    torch.testing.assert_close(slopes, slopes[..., :1].expand_as(slopes), atol=1e-3, rtol=0)
    assert 0.79 < slopes.min() < 0.85 and 1.15 < slopes.max() < 1.21
    assert views.min() >= 0 and views.max() <= 599


def test_each_lead_has_a_gain_of_its_own():
    plain, altered = windows()[0], windows(lead_gain_std=0.3)[0]
    gains = altered / plain
    torch.testing.assert_close(gains, gains[..., :1].expand_as(gains), rtol=1e-4, atol=0)
    logarithms = windows(records=range(300), lead_gain_std=0.3)[0][..., 0].div(windows(records=range(300))[0][..., 0])
    assert logarithms.log().std().item() == pytest.approx(0.3, rel=0.05)


def test_the_noise_is_white_and_of_random_strength():
    noise = windows(records=range(200), noise_std=0.5)[0] - windows(records=range(200))[0]
    strengths = noise.std(dim=(2, 3))
    assert strengths.max() < 0.55 and strengths.min() < 0.05
    assert strengths.mean().item() == pytest.approx(0.25, rel=0.1)


def test_the_wander_is_slow():
    wander = windows(wander_amplitude=0.5)[0] - windows()[0]
    spectrum = torch.fft.rfft(wander, n=2000).abs()
    assert (spectrum.argmax(dim=-1) <= 2000 * 0.75 / 100).all() and wander.abs().amax() > 0.1


@pytest.mark.parametrize("num_time_masks", [1, 3])
def test_hidden_time_is_zero_in_all_leads_and_has_the_mean_that_is_asked_for(num_time_masks):
    views, _ = windows(records=range(300), time_mask_ratio=0.15, num_time_masks=num_time_masks)
    hidden = views == 0
    assert torch.equal(hidden, hidden[:, :, :1].expand_as(hidden))
    stretches = (hidden[:, :, 0].long().diff(dim=-1, prepend=torch.zeros(300, 3, 1).long()) == 1).sum(-1)
    assert stretches.max() == num_time_masks
    # Stretches that reach over an end, or lie over another, hide less.
    assert 0.10 < hidden.float().mean().item() < 0.15


def test_leads_are_left_out_and_at_least_one_stays():
    views, kept = windows(records=range(300), lead_dropout=0.5)
    assert torch.equal(kept, views.abs().sum(-1) > 0)
    assert kept.any(dim=-1).all() and 0.4 < kept.float().mean() < 0.6
    _, few = windows(records=range(300), leads=8, few_leads_chance=0.5)
    counts = few.sum(-1).flatten()
    assert set(counts.tolist()) == {1, 2, 3, 8}
    assert (counts == 8).float().mean().item() == pytest.approx(0.5, abs=0.06)


def test_windows_of_a_record_do_not_depend_on_the_batch_around_it():
    altered = {"time_warp": 0.1, "lead_gain_std": 0.2, "noise_std": 0.3, "wander_amplitude": 0.1, "lead_dropout": 0.2}
    before = torch.random.get_rng_state()
    settings = WindowViewSettings(**(UNALTERED | altered))
    views, kept = make_window_views(signals(6), settings, generators(*range(6)))
    alone, kept_alone = make_window_views(signals(6)[5:], settings, generators(5))
    assert torch.equal(alone[0], views[5]) and torch.equal(kept_alone[0], kept[5])
    assert torch.equal(torch.random.get_rng_state(), before)
    with pytest.raises(ValueError, match="Expected one generator for each of 6 records, got 1"):
        make_window_views(signals(6), settings, generators(5))

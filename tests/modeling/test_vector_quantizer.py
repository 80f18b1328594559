import pytest
import torch

from ecg_transformers.modeling.vector_quantizer import VectorQuantizer


def latents(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def quantizer(num_codes=6, code_size=4, **options):
    torch.manual_seed(0)
    return VectorQuantizer(num_codes, code_size, **options)


@pytest.mark.parametrize("published", [False, True])
def test_codes_and_losses_equal_a_manual_search(published):
    model, inputs = quantizer(published=published), latents(2, 5, 4).requires_grad_()
    output = model(inputs)
    codebook = model.codebook.detach()
    distances = []
    for record in range(2):
        for token in range(5):
            errors = [(inputs[record, token] - code).square().sum().item() for code in codebook]
            best = min(range(6), key=errors.__getitem__)
            assert output.code_indices[record, token] == best
            torch.testing.assert_close(output.quantized[record, token], codebook[best])
            distances.append(errors[best] / 4)
    commitment = sum(distances) / len(distances)
    assert output.commitment_loss.item() == pytest.approx(commitment, rel=1e-5)
    assert output.loss.item() == pytest.approx((1.25 if published else 0.25) * commitment, rel=1e-5)


def test_each_term_of_the_published_loss_moves_its_own_side():
    model, inputs = quantizer(published=True), latents(10, 4).requires_grad_()
    output = model(inputs)
    output.loss.backward()
    towards = 2 * (inputs.detach() - model.codebook.detach()[output.code_indices]) / inputs.numel()
    torch.testing.assert_close(inputs.grad, 0.25 * towards)
    expected = torch.zeros(6, 4).index_add_(0, output.code_indices, -towards)
    torch.testing.assert_close(model.codebook.grad, expected)


def test_the_gradient_goes_straight_through():
    model, inputs = quantizer(), latents(3, 4).requires_grad_()
    weights = latents(3, 4, seed=1)
    (model(inputs).quantized * weights).sum().backward()
    assert torch.equal(inputs.grad, weights)


def test_perplexity_and_codes_in_use_are_those_of_the_batch_in_evaluation():
    model = quantizer(num_codes=4, code_size=1)
    model.codebook.copy_(torch.tensor([[0.0], [1.0], [2.0], [3.0]]))
    output = model(torch.tensor([[0.0], [0.1], [1.0], [1.1], [0.9], [0.9]]))
    assert output.codes_in_use == 0.5
    shares = torch.tensor([2 / 6, 4 / 6])
    torch.testing.assert_close(output.perplexity, torch.exp(-(shares * shares.log()).sum()))


def test_the_first_training_batch_gives_the_codes():
    model, inputs = quantizer(), latents(20, 4)
    model(inputs, update=True)
    start = quantizer()
    start._start_from(inputs[start.next_order(20)[:6]])
    assert all(any(torch.equal(code, row) for row in inputs) for code in start.codebook)
    assert len(start.codebook.unique(dim=0)) == 6


def test_moving_averages_equal_a_manual_step():
    model, inputs = quantizer(decay=0.9), latents(20, 4)
    model(inputs, update=True)
    counts, sums, codebook = model.code_counts.clone(), model.code_sums.clone(), model.codebook.clone()
    inputs = latents(20, 4, seed=1)
    chosen = model(inputs, update=True).code_indices
    for code in range(6):
        mine = inputs[chosen == code]
        count = 0.9 * counts[code] + 0.1 * len(mine)
        total = 0.9 * sums[code] + 0.1 * mine.sum(dim=0)
        torch.testing.assert_close(model.codebook[code], total / count)
        if not len(mine):
            torch.testing.assert_close(model.codebook[code], codebook[code])


def test_the_codebook_has_no_gradient_and_learns_only_when_asked():
    model = quantizer()
    assert not list(model.parameters())
    model(latents(20, 4), update=True)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model(latents(20, 4, seed=1))
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())


def test_a_dead_code_is_put_onto_a_current_latent():
    model = quantizer(dead_code_steps=3)
    model(latents(20, 4), update=True)
    model.codebook[2] = model.code_sums[2] = 1e3
    model.code_counts[2] = 1.0
    model.steps_unused[2] = 0
    for step in range(3):
        assert model.codebook[2].max() > 10
        inputs = latents(20, 4, seed=2 + step)
        output = model(inputs, update=True)
    assert any(torch.equal(model.codebook[2], row) for row in inputs)
    assert output.codes_in_use < 1.0  # it still has to be chosen
    assert model(model.codebook[2:3]).code_indices.item() == 2


def test_dead_codes_come_back_to_life_where_the_published_form_loses_them():
    corrected, published = quantizer(num_codes=64, dead_code_steps=5), quantizer(num_codes=64, published=True)
    for step in range(60):
        inputs = 3.0 + 0.1 * latents(200, 4, seed=step)  # far from where random codes start
        uses = [model(inputs, update=True).codes_in_use for model in (corrected, published)]
    assert uses[0] > 0.9
    assert uses[1] < 0.2
    assert (published.codebook.norm(dim=1) < 1e-3).float().mean() > 0.8


def test_restarts_depend_on_nothing_but_the_codebook_and_leave_the_global_generator_alone():
    state = torch.random.get_rng_state()
    books = []
    for seed in (1, 2):
        model = quantizer(dead_code_steps=2)
        torch.manual_seed(seed)
        before = torch.random.get_rng_state()
        for step in range(5):
            model(latents(8, 4, seed=step) * (1 + step), update=True)
        assert torch.equal(before, torch.random.get_rng_state())
        books.append(model.codebook)
    torch.random.set_rng_state(state)
    assert torch.equal(*books)


def test_training_goes_on_from_saved_state():
    first, second = quantizer(dead_code_steps=2), quantizer(dead_code_steps=2)
    for step in range(4):
        first(latents(8, 4, seed=step), update=True)
    second.load_state_dict(first.state_dict())
    for model in (first, second):
        for step in range(4, 8):
            model(latents(8, 4, seed=step), update=True)
    assert all(torch.equal(a, b) for a, b in zip(first.buffers(), second.buffers(), strict=True))


def test_everything_is_float32_under_autocast():
    model, inputs = quantizer(), latents(20, 4)
    reference = quantizer()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(inputs.bfloat16(), update=True)
    expected = reference(inputs.bfloat16().float(), update=True)
    assert output.quantized.dtype == output.loss.dtype == model.codebook.dtype == torch.float32
    assert torch.equal(output.code_indices, expected.code_indices)
    assert torch.equal(model.codebook, reference.codebook)


def test_a_codebook_in_half_precision_is_not_trained():
    with pytest.raises(ValueError, match="codebook is in torch.bfloat16"):
        quantizer().bfloat16()(latents(4, 4).bfloat16(), update=True)


def _two_processes(rank, file, results):
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    model = quantizer(num_codes=16, dead_code_steps=2)
    outputs = []
    for step in range(6):
        half = latents(20, 4, seed=step).chunk(2)[rank]
        output = model(half, update=True)
        outputs.append((output.perplexity.item(), output.codes_in_use.item()))
    torch.save((dict(model.named_buffers()), outputs), f"{results}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_learn_the_codebook_of_one_with_the_whole_batch(tmp_path):
    torch.multiprocessing.start_processes(
        _two_processes, args=(tmp_path / "store", tmp_path), nprocs=2, start_method="fork"
    )
    model = quantizer(num_codes=16, dead_code_steps=2)
    expected = []
    for step in range(6):
        output = model(latents(20, 4, seed=step), update=True)
        expected.append((output.perplexity.item(), output.codes_in_use.item()))
    for rank in range(2):
        buffers, outputs = torch.load(tmp_path / f"{rank}.pt")
        for name, buffer in model.named_buffers():
            torch.testing.assert_close(buffers[name], buffer, atol=1e-6, rtol=1e-5, msg=name)
        torch.testing.assert_close(torch.tensor(outputs), torch.tensor(expected))

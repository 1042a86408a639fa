"""Eq. 1, 5, 8, 9 and 10 are what the paper writes: each is recomputed term by term in plain Python."""

import math

import pytest
import torch

from sur_core import losses

DTYPES = [torch.float16, torch.bfloat16]


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def softmax(features: list[float], temperature: float) -> list[float]:
    powers = [math.exp(feature / temperature) for feature in features]
    return [power / sum(powers) for power in powers]


def divergence(left: list[float], right: list[float], temperature: float) -> float:
    """KL of two softmaxes, feature by feature."""
    p, q = softmax(left, temperature), softmax(right, temperature)
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def token_by_token(term, left, right, mask=None) -> torch.Tensor:
    """[B]: ``term`` of the features of each token, summed over the tokens that count."""
    found = []
    for sample in range(len(right)):
        total = 0.0
        for token in range(right.shape[1]):
            if mask is None or mask[sample, token]:
                total += term(left[sample, token].tolist(), right[sample, token].tolist())
        found.append(total)
    return torch.tensor(found, dtype=torch.float64)


def squared_distance(left, right):
    return sum((a - b) ** 2 for a, b in zip(left, right, strict=True))


MASK = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)


@pytest.mark.parametrize("mask", [None, MASK], ids=["all tokens", "masked"])
@pytest.mark.parametrize("temperature", [1.0, 0.3, 4.0])
@pytest.mark.parametrize("direction", losses.KL_DIRECTIONS)
def test_distillation_is_equation_5(direction, temperature, mask):
    knowledge, query = draw(3, 5), draw(3, 4, 5, seed=1)
    every_token = knowledge[:, None].expand(3, 4, 5)
    if direction == "paper":
        expected = token_by_token(lambda k, q: divergence(k, q, temperature), every_token, query, mask)
    else:
        expected = token_by_token(lambda k, q: divergence(q, k, temperature), every_token, query, mask)
    found = losses.distillation_loss(knowledge, query, temperature, direction, mask)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("mask", [None, MASK], ids=["all tokens", "masked"])
@pytest.mark.parametrize("temperature", [1.0, 0.3, 4.0])
@pytest.mark.parametrize("kind", losses.CP_LOSSES)
def test_alignment_is_equation_9_or_its_extensions(kind, temperature, mask):
    adapted, target = draw(3, 4, 5), draw(3, 4, 5, seed=1)
    terms = {
        "kl": lambda a, b: divergence(a, b, temperature),
        "mse": squared_distance,
        "kl+mse": lambda a, b: divergence(a, b, temperature) + squared_distance(a, b),
    }
    found = losses.alignment_loss(adapted, target, temperature, kind, mask)
    expected = token_by_token(terms[kind], adapted, target, mask)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_a_constant_shift_of_a_token_is_seen_by_the_squared_error_alone():
    adapted, target, shift = draw(2, 4, 5), draw(2, 4, 5, seed=1), draw(2, 4, 1, seed=2)
    kl, moved = (losses.alignment_loss(x, target) for x in (adapted, adapted + shift))
    torch.testing.assert_close(kl, moved, rtol=1e-12, atol=0)
    assert (losses.alignment_loss(target + shift, target).abs() < 1e-12).all()
    for kind in ("mse", "kl+mse"):
        seen = losses.alignment_loss(target + shift, target, kind=kind)
        torch.testing.assert_close(seen, 5 * shift.square().sum((1, 2)), rtol=1e-9, atol=0)


def test_equal_distributions_cost_nothing_and_others_something():
    features = draw(2, 4, 5)
    for kind in losses.CP_LOSSES:
        assert not losses.alignment_loss(features, features, kind=kind).any()
        assert (losses.alignment_loss(features, features.flip(-1), kind=kind) > 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_inputs_are_computed_in_32_bits(dtype, autocast):
    """Sums of 77 x 768 squares of 60 are beyond float16's range, and far beyond its accuracy."""
    left, right = draw(2, 77, 768, dtype=dtype) * 60, draw(2, 77, 768, seed=1, dtype=dtype) * 60
    knowledge = draw(2, 768, seed=2, dtype=dtype) * 9
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = [
            losses.distillation_loss(knowledge, left / 9),
            *(losses.alignment_loss(left, right, temperature=9, kind=kind) for kind in losses.CP_LOSSES),
            losses.diffusion_loss(left[:, None], right[:, None]),
        ]
    left, right, knowledge = left.double(), right.double(), knowledge.double()
    expected = [
        losses.distillation_loss(knowledge, (left.to(dtype) / 9).double()),
        *(losses.alignment_loss(left, right, temperature=9, kind=kind) for kind in losses.CP_LOSSES),
        losses.diffusion_loss(left[:, None], right[:, None]),
    ]
    for ours, exact in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=0)


def test_diffusion_loss_is_equation_8():
    prediction, target = draw(2, 3, 2, 2), draw(2, 3, 2, 2, seed=1)
    for sample, found in enumerate(losses.diffusion_loss(prediction, target).tolist()):
        pairs = zip(prediction[sample].flatten().tolist(), target[sample].flatten().tolist(), strict=True)
        assert found == pytest.approx(sum((a - b) ** 2 for a, b in pairs) / 12, rel=1e-12)


def test_total_is_equation_10():
    llm, cp, simple = draw(4), draw(4, seed=1), draw(4, seed=2)
    expected = [
        1e-5 * a + 3e-4 * b + c for a, b, c in zip(*map(torch.Tensor.tolist, (llm, cp, simple)), strict=True)
    ]
    found = losses.total_loss(llm, cp, simple, 1e-5, 3e-4)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-14, atol=0)


@pytest.fixture(scope="module")
def schedule():
    from diffusers import DDPMScheduler

    return DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


TIMES = torch.tensor([0, 1, 250, 600, 998, 999])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_noise_and_targets_are_diffusers_own(schedule, dtype):
    latents, noise = draw(6, 4, 3, 3, dtype=dtype), draw(6, 4, 3, 3, seed=1, dtype=dtype)
    alphas = schedule.alphas_cumprod
    noisy = losses.add_noise(latents, noise, alphas, TIMES)
    torch.testing.assert_close(noisy, schedule.add_noise(latents, noise, TIMES), rtol=1e-6, atol=1e-6)
    assert losses.prediction_target(latents, noise, alphas, TIMES, "epsilon") is noise
    velocity = losses.prediction_target(latents, noise, alphas, TIMES, "v_prediction")
    expected = schedule.get_velocity(latents, noise, TIMES)
    torch.testing.assert_close(velocity, expected, rtol=1e-6, atol=1e-6)
    assert noisy.dtype == velocity.dtype == dtype


def test_noise_and_latents_can_be_read_back_from_v(schedule):
    """x_0 = alpha z - sigma v and noise = sigma z + alpha v: v is the quarter turn of z_t."""
    latents, noise, alphas = draw(6, 4, 3, 3), draw(6, 4, 3, 3, seed=1), schedule.alphas_cumprod
    noisy = losses.add_noise(latents, noise, alphas, TIMES)
    velocity = losses.prediction_target(latents, noise, alphas, TIMES, "v_prediction")
    square = alphas.double()[TIMES].view(-1, 1, 1, 1)
    alpha, sigma = square.sqrt(), (1 - square).sqrt()
    torch.testing.assert_close(alpha * noisy - sigma * velocity, latents, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sigma * noisy + alpha * velocity, noise, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gamma", [0.5, 5.0, 1e9])
def test_min_snr_weights_are_the_formula(schedule, gamma):
    alphas = schedule.alphas_cumprod
    for kind, divisor in (("epsilon", lambda snr: snr), ("v_prediction", lambda snr: snr + 1)):
        found = losses.min_snr_weights(alphas, TIMES, gamma, kind)
        for time, weight in zip(TIMES.tolist(), found.tolist(), strict=True):
            square = alphas[time].double().item()
            snr = square / (1 - square)
            assert weight == pytest.approx(min(snr, gamma) / divisor(snr), rel=1e-6)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_min_snr_makes_an_error_of_the_picture_weigh_min_snr_gamma(schedule, kind):
    """Whatever the UNet predicts, its weighted error is min(SNR, gamma) times that of the x_0 it implies."""
    latents, noise, wrong = draw(6, 4, 3, 3), draw(6, 4, 3, 3, seed=1), draw(6, 4, 3, 3, seed=2)
    alphas, gamma = schedule.alphas_cumprod, 5.0
    square = alphas.double()[TIMES].view(-1, 1, 1, 1)
    alpha, sigma = square.sqrt(), (1 - square).sqrt()
    noisy = losses.add_noise(latents, noise, alphas, TIMES)
    picture = (noisy - sigma * wrong) / alpha if kind == "epsilon" else alpha * noisy - sigma * wrong
    error = losses.diffusion_loss(wrong, losses.prediction_target(latents, noise, alphas, TIMES, kind))
    weights = losses.min_snr_weights(alphas, TIMES, gamma, kind)
    expected = (square / (1 - square)).clamp(max=gamma).flatten() * losses.diffusion_loss(picture, latents)
    torch.testing.assert_close(weights * error, expected, rtol=1e-5, atol=0)


def test_without_a_bound_min_snr_leaves_the_noise_loss_as_it_is(schedule):
    times = torch.arange(1000)
    weights = losses.min_snr_weights(schedule.alphas_cumprod, times, 1e9, "epsilon")
    assert (weights == 1).all()
    weights = losses.min_snr_weights(schedule.alphas_cumprod, times, 1e9, "v_prediction")
    torch.testing.assert_close(weights, schedule.alphas_cumprod, rtol=1e-6, atol=0)


def test_a_schedule_that_ends_in_pure_noise_has_weights():
    alphas = torch.tensor([0.9, 0.0])
    assert losses.min_snr_weights(alphas, torch.tensor([1]), 5.0, "epsilon").item() == 1
    assert losses.min_snr_weights(alphas, torch.tensor([1]), 5.0, "v_prediction").item() < 1e-9


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: losses.distillation_loss(x[:, 0], x, direction="both"), "kl_direction must be one of"),
        (lambda x: losses.alignment_loss(x, x, kind="mae"), "cp_loss must be one of"),
        (
            lambda x: losses.prediction_target(x, x, torch.ones(2), torch.zeros(2).long(), "sample"),
            "prediction_type must be",
        ),
    ],
)
def test_an_unknown_kind_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call(draw(2, 4, 5))

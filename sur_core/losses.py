"""The losses of the paper, each for every sample of a batch on its own: Eq. 5, 8, 9 and 10.

KL divergences are summed over features and tokens, as the paper's weights of 1e-5 presume; Eq. 8 is the
mean over a latent's elements, as everywhere in the field. Means over the batch are taken by the caller, so
that the loss of a batch is the mean of its samples' losses whatever the batch is split into.
"""

from __future__ import annotations

import torch
from torch.nn import functional

KL_DIRECTIONS = ("paper", "authors")
CP_LOSSES = ("kl", "mse", "kl+mse")


def distillation_loss(
    knowledge: torch.Tensor,
    query: torch.Tensor,
    temperature: float = 1.0,
    direction: str = "paper",
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Eq. 5: the adapter's query learns what the language model knows.

    Args:
        knowledge: W0 f_LLM(p_s), [B, D]; the same for every token of the prompt.
        query: Q of Eq. 4, [B, T, D].
        temperature: tau; both sides are divided by it before the softmax over features.
        direction: ``"paper"`` is KL[W0 f_LLM || Q] as written, ``"authors"`` KL[Q || W0 f_LLM] as in their
            released code.
        mask: bool [B, T], tokens that count; ``None`` counts all, as the paper does.

    Returns:
        [B], summed over tokens and features.
    """
    teacher = _log_softmax(knowledge, temperature).unsqueeze(1)  # [B, 1, D]
    student = _log_softmax(query, temperature)
    if direction not in KL_DIRECTIONS:
        raise ValueError(f"kl_direction must be one of {KL_DIRECTIONS}, found {direction!r}")
    pair = (teacher, student) if direction == "paper" else (student, teacher)
    return _over_tokens(_divergence(*pair), mask)


def alignment_loss(
    adapted: torch.Tensor,
    target: torch.Tensor,
    temperature: float = 1.0,
    kind: str = "kl",
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Eq. 9: the adapted simple prompt comes to mean what the complex prompt means.

    Args:
        adapted: c'_LLM of Eq. 7, [B, T, D].
        target: f_En(p_c), [B, T, D]; gets no gradient where it needs none.
        temperature: tau of the softmax over features; the squared error knows none.
        kind: ``"kl"`` is the paper's KL[c' || f_En(p_c)]. A softmax cannot see a token whose features are all
            shifted by one constant, which the UNet does see, so there are two extensions: ``"mse"``, the
            squared distance, and ``"kl+mse"``, their sum.
        mask: bool [B, T], tokens that count; ``None`` counts all.

    Returns:
        [B], summed over tokens and features.
    """
    if kind not in CP_LOSSES:
        raise ValueError(f"cp_loss must be one of {CP_LOSSES}, found {kind!r}")
    total = torch.zeros((), device=adapted.device)
    if "kl" in kind:
        total = total + _divergence(_log_softmax(adapted, temperature), _log_softmax(target, temperature))
    if "mse" in kind:
        total = total + (_precise(adapted) - _precise(target)).square().sum(dim=-1)
    return _over_tokens(total, mask)


def diffusion_loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Eq. 8: [B], mean squared error over the elements of each latent [B, C, h, w]."""
    return (_precise(prediction) - _precise(target)).square().flatten(1).mean(dim=1)


def total_loss(
    llm: torch.Tensor, cp: torch.Tensor, simple: torch.Tensor, lambda_llm: float, lambda_cp: float
) -> torch.Tensor:
    """Eq. 10."""
    return lambda_llm * llm + lambda_cp * cp + simple


def add_noise(
    latents: torch.Tensor, noise: torch.Tensor, alphas_cumprod: torch.Tensor, timesteps: torch.Tensor
) -> torch.Tensor:
    """Eq. 1: alpha_t x_0 + sigma_t noise; alpha_t^2 = ``alphas_cumprod[t]``, alpha_t^2 + sigma_t^2 = 1.

    Args:
        latents, noise: [B, C, h, w].
        alphas_cumprod: [T], on any device.
        timesteps: int [B].
    """
    alpha, sigma = _alpha_sigma(alphas_cumprod, timesteps, latents)
    return alpha * latents + sigma * noise


def prediction_target(
    latents: torch.Tensor,
    noise: torch.Tensor,
    alphas_cumprod: torch.Tensor,
    timesteps: torch.Tensor,
    prediction_type: str,
) -> torch.Tensor:
    """What the UNet should say: the noise, or with v-prediction alpha_t noise - sigma_t x_0 (Salimans & Ho,
    2022). Arguments as :func:`add_noise`.
    """
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "v_prediction":
        alpha, sigma = _alpha_sigma(alphas_cumprod, timesteps, latents)
        return alpha * noise - sigma * latents
    raise ValueError(f"prediction_type must be 'epsilon' or 'v_prediction', found {prediction_type!r}")


def min_snr_weights(
    alphas_cumprod: torch.Tensor, timesteps: torch.Tensor, gamma: float, prediction_type: str
) -> torch.Tensor:
    """Weights [B] of Eq. 8 by Min-SNR-gamma (Hang et al., 2023), which keeps easy timesteps from ruling.

    An error of x_0 is to weigh min(SNR, gamma) at every timestep. The squared error of the noise is SNR times
    that of x_0, the one of v SNR + 1 times.
    """
    square = alphas_cumprod.double()
    # A schedule that ends in pure noise has SNR 0 there: the limit of min(SNR, gamma) / SNR is 1.
    snr = (square / (1 - square)).clamp_min(1e-12)
    weights = snr.clamp(max=gamma) / (snr if prediction_type == "epsilon" else snr + 1)
    return weights.float().to(timesteps.device)[timesteps]


def _divergence(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """KL(p || q) over the last axis."""
    return functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=-1)


def _log_softmax(features: torch.Tensor, temperature: float) -> torch.Tensor:
    return (_precise(features) / temperature).log_softmax(dim=-1)


def _precise(tensor: torch.Tensor) -> torch.Tensor:
    """At least 32 bits: a sum of 59,136 terms means nothing in 16."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _over_tokens(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    return (values if mask is None else values * mask).sum(dim=1)


def _alpha_sigma(alphas_cumprod: torch.Tensor, timesteps: torch.Tensor, like: torch.Tensor):
    square = alphas_cumprod.double()  # where the schedule is: not every device knows 64 bits
    pair = torch.stack([square.sqrt(), (1 - square).sqrt()]).to(like.dtype).to(like.device)
    alpha, sigma = pair[:, timesteps.to(like.device)].view(2, -1, 1, 1, 1)
    return alpha, sigma

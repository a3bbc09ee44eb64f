"""Prophet, the gated cross-attention and the world loss."""

from __future__ import annotations

import pytest
import torch

from lerobot_policy_world_modality.prophet import (
    MEMORIES,
    GatedCrossAttention,
    MemorySources,
    Prophet,
    masked_mean,
    require_finite,
    world_loss,
)

DIM, HISTORY, HORIZON = 12, 4, 8


@pytest.fixture
def prophet():
    torch.manual_seed(0)
    prophet = Prophet(DIM, HISTORY, HORIZON, width=16, layers=2, heads=4)
    prophet.set_standardization(torch.full((DIM,), 5.0), torch.full((DIM,), 2.0))
    return prophet


@pytest.fixture
def attention():
    torch.manual_seed(0)
    return GatedCrossAttention(dim=16, memory_dim=DIM, heads=4)


def test_an_untrained_prophet_copies_the_last_latent_in_standard_units(prophet):
    history = torch.randn(3, HISTORY, DIM)
    predicted = prophet(history)
    assert torch.equal(predicted, ((history[:, -1:] - 5) / 2).expand(3, HORIZON, DIM))


def test_prophet_learns_a_motion_that_copying_the_last_latent_misses(prophet):
    position = torch.arange(HISTORY + HORIZON) * 0.4
    phase = torch.randn(256, 1)
    latents = torch.cat([torch.sin(position + phase)[..., None], torch.cos(position + phase)[..., None]], dim=-1)
    latents = latents.repeat(1, 1, DIM // 2) * 2 + 5
    history, target = latents[:, :HISTORY], prophet.standardize(latents[:, HISTORY:])
    valid = torch.ones(256, HORIZON, dtype=torch.bool)
    copy_last = world_loss(prophet(history), target, valid)
    optimizer = torch.optim.AdamW(prophet.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = world_loss(prophet(history), target, valid)
        loss.backward()
        optimizer.step()
    assert loss < 0.1 * copy_last


def test_prophet_knows_the_order_of_its_history(prophet):
    torch.nn.init.normal_(prophet.head.weight)
    history = torch.randn(2, HISTORY, DIM)
    swapped = history[:, [1, 0, 2, 3]]
    assert not torch.allclose(prophet(history), prophet(swapped))


def test_the_transformer_layers_start_from_different_weights(prophet):
    first, second = (layer.linear1.weight for layer in prophet.layers)
    assert not torch.equal(first, second)


def test_standardization_travels_with_the_weights(prophet):
    other = Prophet(DIM, HISTORY, HORIZON, width=16, layers=2, heads=4)
    assert not other.is_standardized
    other.load_state_dict(prophet.state_dict())
    assert other.is_standardized
    history = torch.randn(2, HISTORY, DIM)
    assert torch.equal(other(history), prophet(history))


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (torch.zeros(3), torch.ones(DIM), "mean is not 12 finite values"),
        (torch.zeros(DIM), torch.full((DIM,), torch.nan), "std is not 12 finite values"),
        (torch.zeros(DIM), torch.zeros(DIM), "std is not positive in dimension 0"),
    ],
)
def test_an_impossible_standardization_is_refused(prophet, mean, std, message):
    with pytest.raises(ValueError, match=message):
        prophet.set_standardization(mean, std)


def test_with_its_gate_at_zero_the_attention_changes_nothing(attention):
    x, memory = torch.randn(2, 5, 16), torch.randn(2, HORIZON, DIM)
    assert torch.equal(attention(x, memory), x)


def test_with_its_gate_open_the_attention_adds_what_it_attended_to(attention):
    x, memory = torch.randn(2, 5, 16), torch.randn(2, HORIZON, DIM)
    attention.gate.data.fill_(0.5)
    attended = attention.attention(x, memory, memory)[0]
    assert torch.allclose(attention(x, memory), x + torch.tanh(torch.tensor(0.5)) * attended, atol=1e-6)


def test_the_gate_receives_a_gradient_while_it_is_closed(attention):
    attention(torch.randn(2, 5, 16), torch.randn(2, HORIZON, DIM)).square().sum().backward()
    assert attention.gate.grad.abs() > 0


def test_a_memory_of_zeros_opens_the_gate_too(attention):
    optimizer = torch.optim.AdamW(attention.parameters(), 1e-3)
    x = torch.randn(2, 5, 16)
    for _ in range(3):
        optimizer.zero_grad()
        (attention(x, torch.zeros(2, HORIZON, DIM)) - 1).square().mean().backward()
        optimizer.step()
    assert attention.strength.abs() > 1e-3
    assert attention.attention.in_proj_bias.grad.abs().max() > 0


def test_a_memory_of_zeros_is_a_learned_constant(attention):
    attention.gate.data.fill_(0.5)
    x = torch.randn(2, 5, 16)
    added = attention(x, torch.zeros(2, HORIZON, DIM)) - x
    assert added.abs().min() > 0
    assert torch.allclose(added, added[:1, :1].expand_as(added), atol=1e-6)


def test_attention_weights_are_a_distribution_over_the_predicted_frames(attention):
    weights = attention.attention_weights(torch.randn(2, 5, 16), torch.randn(2, HORIZON, DIM))
    assert weights.shape == (2, 4, 5, HORIZON)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 4, 5))


def test_heads_that_do_not_divide_the_width_are_named():
    with pytest.raises(ValueError, match="width 15 is not a multiple of 4"):
        GatedCrossAttention(dim=15, memory_dim=DIM, heads=4)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_memory_that_is_not_finite_is_an_error_that_names_the_row(value):
    memory = torch.zeros(3, HORIZON, DIM)
    memory[1, 2, 3] = value
    with pytest.raises(FloatingPointError, match=r"rows \[1\]"):
        require_finite(memory)


def test_the_zero_memory_has_the_shape_of_the_prediction():
    predicted = torch.randn(2, HORIZON, DIM)
    sources = MemorySources(predicted, predicted[None], torch.Generator())
    assert torch.equal(MEMORIES["zero"].of(sources), torch.zeros(2, HORIZON, DIM))
    assert MEMORIES["predicted"].of(sources) is predicted


def test_the_world_loss_ignores_what_lies_past_the_episode():
    predicted, target = torch.randn(2, HORIZON, DIM), torch.randn(2, HORIZON, DIM)
    valid = torch.arange(HORIZON).expand(2, -1) < torch.tensor([[3], [8]])
    before = world_loss(predicted, target, valid)
    target[0, 3:] = 1e3
    assert torch.equal(world_loss(predicted, target, valid), before)
    per_sample = world_loss(predicted, target, valid, reduction="none")
    assert torch.allclose((per_sample * torch.tensor([3, 8])).sum() / 11, before)


def test_a_sample_at_the_very_end_of_an_episode_has_no_world_loss():
    nothing_valid = torch.zeros(2, HORIZON, dtype=torch.bool)
    loss = world_loss(torch.randn(2, HORIZON, DIM), torch.randn(2, HORIZON, DIM), nothing_valid)
    assert loss == 0


def test_masked_mean_averages_only_the_valid_values():
    values, valid = torch.tensor([[1.0, 3.0], [5.0, 7.0]]), torch.tensor([[True, False], [True, True]])
    assert masked_mean(values, valid) == pytest.approx(13 / 3)
    assert masked_mean(values, valid, dim=1).tolist() == [1.0, 6.0]

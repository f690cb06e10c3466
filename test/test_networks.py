"""The networks against the thesis: counts, equations, initialisation, gradients, learning."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor, nn
from torchvision.transforms.functional import normalize

from monet_perception.checkpoint import save_checkpoint
from monet_perception.networks import (
    PRESETS,
    ConfigError,
    Monet,
    MonetConfig,
    MonetOutput,
    initialise,
    monet_loss,
)
from monet_perception.networks.component_vae import Broadcast
from monet_perception.networks.monet import make_attention
from monet_perception.networks.pretrained import PretrainedError, load_pretrained
from monet_perception.networks.resnet import IMAGENET_MEAN, IMAGENET_STD, ResNetEncoder
from monet_perception.networks.scope import scope_step, softmax_masks, stick_breaking
from monet_perception.networks.segmentation import WIDE, TransposedConvolution
from monet_perception.networks.unet import RecurrentAttention

# The presets' structure at a size that a test can train: fewer channels, a smaller encoder and image.
SMALL = {
    name: dataclasses.replace(
        preset,
        slots=3,
        image_size=32,
        unet_channels=(8, 16, 16, 32, 32),
        encoder="resnet18",
        decoder_channels=tuple(max(8, channels // 8) for channels in preset.decoder_channels),
    )
    for name, preset in PRESETS.items()
}


def logits(limit: float, slots: int = 5) -> st.SearchStrategy[Tensor]:
    values = st.floats(-limit, limit, width=32)
    return arrays(np.float32, (2, slots, 2, 3), elements=values).map(torch.from_numpy)


def recursive_masks(alpha: Tensor) -> Tensor:
    """`scope_step` applied slot by slot, as the recurrent attention does."""
    log_scope = torch.zeros_like(alpha[:, :1], dtype=torch.float32)
    log_masks = []
    for k in range(alpha.shape[1] - 1):
        log_mask, log_scope = scope_step(log_scope, alpha[:, k : k + 1])
        log_masks.append(log_mask)
    return torch.cat([*log_masks, log_scope], dim=1)


MASKS = [stick_breaking, recursive_masks, softmax_masks]


@pytest.mark.parametrize("slots", [7, 11])
@pytest.mark.parametrize(
    ("preset", "base", "per_slot"),
    [("monet", 13_925_825, 0), ("monet_rn50", 54_024_192, 65), ("monet_rn50_star", 55_790_352, 17)],
)
def test_parameters_are_those_of_table_5_5(preset: str, base: int, per_slot: int, slots: int) -> None:
    with torch.device("meta"):
        attention = make_attention(dataclasses.replace(PRESETS[preset], slots=slots))
    assert sum(parameter.numel() for parameter in attention.parameters()) == base + per_slot * slots


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@given(alpha=logits(1e4))
def test_masks_sum_to_one_and_gradients_are_finite(masks, dtype: torch.dtype, alpha: Tensor) -> None:
    alpha = alpha.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        log_masks = masks(alpha.to(dtype))
    assert log_masks.dtype == torch.float32
    assert torch.isfinite(log_masks).all()
    torch.testing.assert_close(log_masks.exp().sum(dim=1), torch.ones(2, 2, 3), atol=1e-5, rtol=0)
    log_masks.square().mean().backward()
    assert alpha.grad is not None
    assert torch.isfinite(alpha.grad).all()


@pytest.mark.parametrize("masks", [stick_breaking, recursive_masks])
@given(alpha=logits(25.0))
def test_scope_recursion_is_that_of_the_thesis(masks, alpha: Tensor) -> None:
    # Equations 4.2 to 4.5, as they are printed, in float64
    probabilities = 1.0 / (1.0 + np.exp(-alpha.numpy().astype(np.float64)))
    scope, expected = np.ones((2, 2, 3)), []
    for k in range(4):
        expected.append(scope * probabilities[:, k])
        scope = scope * (1.0 - probabilities[:, k])
    expected.append(scope)
    np.testing.assert_allclose(masks(alpha).exp().numpy(), np.stack(expected, axis=1), atol=1e-6, rtol=1e-4)


def test_each_pass_of_the_recurrent_attention_sees_the_scope_that_is_left() -> None:
    torch.manual_seed(0)
    attention, images = RecurrentAttention(4, (4, 8), 16), torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        masks = attention(images).exp()
        for k in range(3):
            scope = 1 - masks[:, :k].sum(dim=1, keepdim=True)
            alpha = attention.unet(torch.cat([images, scope.log()], dim=1)).sigmoid()  # equation 4.1
            torch.testing.assert_close(masks[:, k : k + 1], scope * alpha, atol=1e-5, rtol=1e-4)


def random_output(seed: int, slots: int = 4, size: int = 5) -> tuple[MonetOutput, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    output = MonetOutput(
        log_masks=stick_breaking(3.0 * normal(2, slots, size, size)),
        latent_mean=2.0 * normal(2, slots, 6),
        latent_log_sigma=normal(2, slots, 6),
        reconstructions=torch.rand(2, slots, 3, size, size, generator=generator),
        mask_logits=3.0 * normal(2, slots, size, size),
    )
    return output, torch.rand(2, 3, size, size, generator=generator)


@given(seed=st.integers(0, 2**32 - 1), beta=st.floats(0.0, 4.0), gamma=st.floats(0.0, 4.0))
def test_loss_is_equation_4_7(seed: int, beta: float, gamma: float) -> None:
    config = MonetConfig(slots=4)
    output, images = random_output(seed)
    loss = monet_loss(output, images, config, beta, gamma)

    wide = MonetOutput(*(value.double() for value in output))
    sigma = torch.tensor([config.sigma_background] + 3 * [config.sigma_foreground], dtype=torch.float64)
    density = torch.distributions.Normal(wide.reconstructions, sigma.view(1, -1, 1, 1, 1))
    likelihood = density.log_prob(images.double().unsqueeze(1)).sum(dim=2).exp()  # of a pixel's three channels
    reconstruction = -(wide.log_masks.exp() * likelihood).sum(dim=1).log().sum(dim=(1, 2))
    posterior = torch.distributions.Normal(wide.latent_mean, wide.latent_log_sigma.exp())
    prior = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64))
    latent_kl = torch.distributions.kl_divergence(posterior, prior).sum(dim=(1, 2))
    attended = torch.distributions.Categorical(logits=wide.log_masks.movedim(1, -1))
    decoded = torch.distributions.Categorical(logits=wide.mask_logits.movedim(1, -1))
    mask_kl = torch.distributions.kl_divergence(attended, decoded).sum(dim=(1, 2))

    for value, expected in [
        (loss.reconstruction, reconstruction),
        (loss.latent_kl, latent_kl),
        (loss.mask_kl, mask_kl),
        (loss.total, reconstruction + beta * latent_kl + gamma * mask_kl),
    ]:
        assert value.dtype == torch.float32
        # A total that cancels to nearly nothing is as exact as its terms.
        torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=1e-4 * float(reconstruction.abs().max()))


@pytest.mark.parametrize("heuristic", ["default", "kaiming"])
@pytest.mark.parametrize(
    ("layer", "fan_in", "fan_out"),
    [
        (nn.Linear(300, 200), 300, 200),
        (nn.Conv2d(30, 50, kernel_size=3), 270, 450),
        (nn.ConvTranspose2d(40, 20, kernel_size=5), 1000, 500),
    ],
)
def test_initialisation_has_the_bounds_and_spread_of_section_4_3(
    heuristic, layer: nn.Module, fan_in: int, fan_out: int
) -> None:
    torch.manual_seed(0)
    initialise(layer, heuristic)
    k = 1 / fan_in if heuristic == "default" else 2 / fan_out
    weight, bound = layer.weight.detach(), k**0.5
    assert weight.abs().max() <= bound
    assert weight.abs().max() > 0.98 * bound
    expected = scipy.stats.truncnorm(-(3**0.5), 3**0.5, scale=(k / 3) ** 0.5)
    assert float(weight.std()) == pytest.approx(expected.std(), rel=0.02)
    assert float(weight.mean()) == pytest.approx(0.0, abs=0.03 * bound)
    assert not layer.bias.detach().any()


def test_broadcast_equals_the_convolution_of_the_tiled_latent() -> None:
    torch.manual_seed(0)
    layer = Broadcast(latent_size=6, channels=5, size=9)
    latents = torch.randn(4, 6)
    tiled = torch.cat([latents[:, :, None, None].expand(-1, -1, 9, 9), layer.grid.expand(4, -1, -1, -1)], dim=1)
    expected = layer.convolution(tiled)
    torch.testing.assert_close(layer(latents), expected, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(layer(latents), expected, atol=1e-5, rtol=1e-5)
    gradients = [
        torch.autograd.grad(y.square().sum(), layer.convolution.parameters()) for y in (layer(latents), expected)
    ]
    for left, right in zip(*gradients, strict=True):
        torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-4)


def test_wide_transposed_convolution_equals_pytorch_s() -> None:
    torch.manual_seed(0)
    # In double precision, so that what is compared is the arithmetic and not in which order a CPU adds.
    layer = TransposedConvolution(WIDE, 3).double()
    x = torch.randn(2, WIDE, 3, 4, dtype=torch.float64, requires_grad=True)
    results = []
    for forward in (layer, lambda x: nn.ConvTranspose2d.forward(layer, x)):
        y = forward(x)
        results.append((y, *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])))
    for left, right in zip(*results, strict=True):
        torch.testing.assert_close(left, right)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("multiple", [2, 3, 5])
def test_every_multiple_of_the_stride_is_an_image_size(preset: str, multiple: int) -> None:
    size = SMALL[preset].stride * multiple
    config = dataclasses.replace(SMALL[preset], image_size=size)
    monet = Monet(config).eval()
    with torch.no_grad():
        output = monet(torch.rand(2, 3, size, size))
    assert output.log_masks.shape == (2, 3, size, size)
    assert output.reconstructions.shape == (2, 3, 3, size, size)
    assert output.mask_logits.shape == (2, 3, size, size)
    assert output.latent_mean.shape == output.latent_log_sigma.shape == (2, 3, config.latent_size)
    assert output.mixture().shape == (2, 3, size, size)


@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("component_decoder", ["broadcast", "upsampling"])
def test_shallow_encoders_take_sizes_that_are_no_multiple_of_sixteen(stages: int, component_decoder) -> None:
    config = dataclasses.replace(
        SMALL["monet_rn50_star"],
        image_size=24,
        decoder_channels=(16, 8, 8)[:stages],
        component_decoder=component_decoder,
    )
    with torch.no_grad():
        output = Monet(config).eval()(torch.rand(1, 3, 24, 24))
    assert output.log_masks.shape == output.mask_logits.shape == (1, 3, 24, 24)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_size", 65),
        ("image_size", 8),
        ("slots", 1),
        ("slots", 3.0),
        ("head", "sigmoid"),
        ("encoder", "resnet101"),
        ("latent_size", 0),
        ("sigma_background", 0.0),
        ("decoder_channels", (1, 2, 3, 4, 5)),
        ("unet_channels", (10**12, 10**12)),
        ("skip_connections", "no"),
        ("stem_pool", 1),
    ],
)
def test_impossible_configurations_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        MonetConfig(**{field: value})


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"attention": "unet", "image_size": 16}, "one pixel after 5 unet_channels"),
        ({"attention": "unet", "head": "softmax"}, "no softmax head"),
        ({"decoder_channels": (8,), "image_size": 18, "component_decoder": "upsampling"}, "multiple of 8"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(change: dict[str, object], cause: str) -> None:
    with pytest.raises(ConfigError, match=cause):
        MonetConfig(**change)


def test_configuration_survives_its_dictionary() -> None:
    for config in PRESETS.values():
        assert MonetConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match="sluts"):
        MonetConfig.from_dict({"sluts": 7})


def test_recurrent_attention_is_taken_over_whatever_the_number_of_slots(tmp_path: Path) -> None:
    config = MonetConfig(attention="unet", slots=3, image_size=16, unet_channels=(4, 8))
    save_checkpoint(tmp_path / "a", Monet(config), dataset="none", steps=0)
    assert load_pretrained(Monet(dataclasses.replace(config, slots=5)), tmp_path / "a") == "attention"
    with pytest.raises(
        PretrainedError, match=r"trained with image_size 16, this network has image_size 32: set"
    ) as told:
        load_pretrained(Monet(dataclasses.replace(config, slots=5, image_size=32)), tmp_path / "a")
    assert "slots" not in str(told.value)


def test_recurrent_attention_refuses_an_encoder_before_it_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", lambda *_, **__: pytest.fail("it was downloaded"))
    with pytest.raises(PretrainedError, match="recurrent attention has no encoder"):
        load_pretrained(Monet(PRESETS["monet"]), "imagenet")


@pytest.mark.parametrize("preset", PRESETS)
def test_encoding_is_the_deterministic_half_of_the_forward_pass(preset: str) -> None:
    monet = Monet(SMALL[preset]).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        whole, again, encoding = monet(images), monet(images), monet.encode(images)
        decoding = monet.decode(encoding.latent_mean)
        sampled = monet.train()(images)
    for first, second in itertools.pairwise([whole, again, MonetOutput(*encoding, *decoding)]):
        for left, right in zip(first, second, strict=True):
            torch.testing.assert_close(left, right, rtol=0, atol=0)
    assert not torch.equal(sampled.reconstructions, whole.reconstructions)


def test_latents_are_drawn_from_their_posterior() -> None:
    torch.manual_seed(0)
    monet, images = Monet(SMALL["monet"]).train(), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        monet.component.encoder.mlp[-1].bias[monet.config.latent_size :].fill_(-1.0)  # log sigma
        torch.manual_seed(1)
        output = monet(images)
        torch.manual_seed(1)
        noise = torch.randn_like(output.latent_mean)
        expected = monet.decode(output.latent_mean + output.latent_log_sigma.exp() * noise)
    torch.testing.assert_close(output.reconstructions, expected.reconstructions)
    torch.testing.assert_close(output.mask_logits, expected.mask_logits)


@pytest.mark.parametrize("preset", PRESETS)
@settings(max_examples=6)
@given(seed=st.integers(0, 2**16), scale=st.sampled_from([1.0, 1e2, 1e4]), autocast=st.booleans())
def test_no_gradient_of_a_network_is_ever_non_finite(preset: str, seed: int, scale: float, autocast: bool) -> None:
    torch.manual_seed(seed)
    config = SMALL[preset]
    monet = Monet(config).train()
    head = monet.attention.unet.head if config.attention == "unet" else monet.attention.head
    nn.init.normal_(head.bias, std=scale)  # logits as large as those of a diverging step
    images = torch.rand(2, 3, config.image_size, config.image_size)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = monet_loss(monet(images), images, config).total.mean()
    loss.backward()
    assert torch.isfinite(loss)
    for name, parameter in monet.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name


def coloured_squares(count: int, size: int, seed: int = 0) -> Tensor:
    """Rooms of a kind: one grey background each, two squares of strong colours; [N, 3, size, size] in [0, 1]."""
    generator = np.random.default_rng(seed)
    images = np.empty((count, 3, size, size), np.float32)
    for image in images:
        image[:] = generator.uniform(0.3, 0.7)
        for _ in range(2):
            side = generator.integers(size // 4, size // 2)
            y, x = generator.integers(0, size - side, 2)
            image[:, y : y + side, x : x + side] = generator.permutation([1.0, 0.0, generator.uniform()])[:, None, None]
    return torch.from_numpy(images)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("name", "stages", "stem_pool"), [("resnet18", 3, False), ("resnet34", 4, True), ("resnet50", 4, False)]
)
def test_encoders_are_those_of_torchvision(name: str, stages: int, stem_pool: bool, training: bool) -> None:
    torch.manual_seed(0)
    resnet = getattr(torchvision.models, name)().train(training)
    encoder = ResNetEncoder(name, stages, stem_pool).train(training)
    dropped = ("fc.", *(f"layer{stage + 1}." for stage in range(stages, 4)))
    state = {key: value for key, value in resnet.state_dict().items() if not key.startswith(dropped)}
    assert list(state) == list(encoder.state_dict()), "optimisers keep their state by the order"
    encoder.load_state_dict(state)
    images = torch.rand(2, 3, 64, 64)
    x = resnet.relu(resnet.bn1(resnet.conv1(normalize(images, IMAGENET_MEAN, IMAGENET_STD))))
    x = resnet.maxpool(x) if stem_pool else x
    features = encoder(images)
    for stage in range(stages):
        x = getattr(resnet, f"layer{stage + 1}")(x)
        torch.testing.assert_close(features[stage], x, rtol=1e-4, atol=1e-4)
    assert [feature.shape[1] for feature in features] == encoder.channels


def test_encoders_start_as_those_of_torchvision() -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50().state_dict()
    for key, value in ResNetEncoder("resnet50", 4, False).state_dict().items():
        if value.dim() > 1:  # of a convolution
            assert value.std().item() == pytest.approx(theirs[key].std().item(), rel=0.05), key
            assert abs(value.mean()) < 0.1 * value.std(), key
        else:
            assert torch.equal(value, theirs[key]), key


def loss_and_error(monet: Monet, images: Tensor) -> tuple[float, float]:
    with torch.no_grad():
        output = monet(images)
        error = F.mse_loss(output.mixture(), images)
    return float(monet_loss(output, images, monet.config).total.mean()), float(error)


# MONet-RN50 is MONet-RN50* without skip connections; processors that emulate bf16 take 22 s for either.
@pytest.mark.parametrize(
    ("preset", "precision"),
    [(preset, kind) for preset in PRESETS for kind in ("fp32", "bf16") if (preset, kind) != ("monet_rn50", "bf16")],
)
def test_every_preset_learns(preset: str, precision: str) -> None:
    torch.manual_seed(0)
    # With the stem's pool and without the deepest stage, which take half of the time.
    small = SMALL[preset]
    config = dataclasses.replace(
        small, stem_pool=small.attention == "resnet", decoder_channels=small.decoder_channels[-3:]
    )
    monet, images = Monet(config), coloured_squares(64, size=32)
    loss_before, error_before = loss_and_error(monet.train(), images)
    optimiser = torch.optim.Adam(monet.parameters(), lr=1e-3)
    for step in range(60):
        batch = images[step % 8 :: 8]
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = monet_loss(monet(batch), batch, monet.config).total.mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    loss_after, error_after = loss_and_error(monet, images)
    assert loss_after < loss_before / 4
    assert error_after < error_before / 3

"""Checkpoints of ECG-CPC (figshare 30192604) to ours: tensor by tensor, and each kernel solved for in our basis.

The files are Lightning checkpoints, `{"state_dict": ..., "hyper_parameters": objects of omegaconf, ...}`; nothing in
them is executed (see `stand_ins`). The encoder lies under `ts_encoder.models.0.`, the map that predicts is
`head_ssl.proj.0.weight`; what comes before `encoder.layers.0.0.weight` is taken as it is found.

A convolution is stored in another form than ours: a normal matrix plus one of rank one in conjugate pairs
(w, P, Q, B), the step, and C~ = C (1 - A^L), which is tied to a length L. Its kernel of L taps is evaluated in
float64 and solved, channel by channel, for the N coefficients of our basis; a kernel that lies outside is refused. The
structure is that of `AI4HealthUOL/ecg-fm-benchmarking` as described in words; the authors' own files were not here to
try.
"""

import re
from collections.abc import Sequence

import torch

from ecg_transformers.modeling import EcgCpcConfig, EcgCpcForPreTraining, EcgCpcModel, EcgFeatureExtractor
from ecg_transformers.modeling.leads import STANDARD_LEADS
from ecg_transformers.modeling.state_space import state_space_basis

from .checkpoint_keys import check_fits, count_blocks, extractor_for, renamed, state_of

FIRST_KEY = "encoder.layers.0.0.weight"
HEAD_KEY = "head_ssl.proj.0.weight"
S4_LAYERS, S4_NORMS = "predictor.predictor.s4_layers.", "predictor.predictor.norms."
RENAMES = [
    (r"^prediction\.weight$", HEAD_KEY),
    (r"^embeddings\.projection\.", "encoder.layers.0.0."),
    (r"^embeddings\.norms\.(\d+)\.", r"encoder.layers.\1.1."),
    (r"^layers\.(\d+)\.output\.", rf"{S4_LAYERS}\1.output_linear.0."),
    (r"^layers\.(\d+)\.layernorm\.", rf"{S4_NORMS}\1."),
]
KERNEL_TENSORS = ("C", "log_dt", "B", "P", "w")
DERIVED = ("omega", "z")  # nodes at which their code evaluates the kernel
TAPS = 3  # of the first convolution, whose stride is 2
WINDOW_SECONDS = 2.5  # on which the authors evaluate
LARGEST_RESIDUAL = 1e-5
"""Largest residual of a kernel in our basis, relative to its norm; float32 tensors leave about 1e-6."""


def convert_ecg_cpc_checkpoint(
    checkpoint: dict, leads: Sequence[str] = STANDARD_LEADS, sampling_rate: float = 240
) -> EcgCpcForPreTraining | EcgCpcModel:
    """Builds our model: for pretraining, or the encoder of a file without `head_ssl`. The file holds neither leads nor
    rate."""
    state = state_of(checkpoint, "state_dict")
    starts = [key.removesuffix(FIRST_KEY) for key in state if key.endswith(FIRST_KEY)]
    if len(starts) != 1:
        raise ValueError(
            f"This is no ECG-CPC checkpoint: expected one key that ends in {FIRST_KEY!r}, found {len(starts)} among "
            f"{sorted(map(str, state))[:6]}..."
        )
    prefix = starts[0]
    inner = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
    others = {key: tensor for key, tensor in state.items() if not key.startswith(prefix)}
    head = others.pop(HEAD_KEY, None)
    if others:
        raise ValueError(f"The checkpoint does not fit the model. Unexpected keys: {sorted(others)}.")
    num_layers = count_blocks(inner, S4_LAYERS)
    kernels = {number: _take_kernel(inner, number) for number in range(num_layers)}
    weight = inner[FIRST_KEY]
    if weight.ndim != 3 or weight.shape[-1] != TAPS:
        raise ValueError(f"Expected {TAPS} taps of the first convolution, got the shape {tuple(weight.shape)}.")
    config = EcgCpcConfig(
        leads=leads,
        sampling_rate=sampling_rate,
        num_samples=round(WINDOW_SECONDS * sampling_rate),
        hidden_size=len(weight),
        num_stem_layers=count_blocks(inner, "encoder.layers."),
        num_hidden_layers=num_layers,
        state_size=2 * kernels[0]["C"].shape[-2] if kernels else 8,
    )
    model = EcgCpcModel(config) if head is None else EcgCpcForPreTraining(config)
    stem = "" if head is None else "ecg_vit."
    theirs = inner if head is None else inner | {HEAD_KEY: head}
    ours, loaded = model.state_dict(), {}
    plain = {key: _their_key(key.removeprefix(stem)) for key in ours if ".convolution." not in key}
    check_fits({their: _their_shape(their, ours[key]) for key, their in plain.items()}, theirs)
    for key, their in plain.items():
        loaded[key] = theirs[their].reshape(ours[key].shape)
    for number, kernel in kernels.items():
        name = f"{stem}layers.{number}.convolution."
        coefficients = solve_coefficients(kernel, number)
        loaded |= {
            name + "coefficients": coefficients[None],
            name + "skip": kernel["D"].reshape(-1),
            name + "log_step": kernel["log_dt"].reshape(-1),
        }
    check_fits(ours, loaded)
    model.load_state_dict(loaded, strict=True)
    return model.eval()


def _take_kernel(inner: dict[str, torch.Tensor], number: int) -> dict[str, torch.Tensor]:
    """Takes the tensors of one convolution out of a state dict."""
    start = f"{S4_LAYERS}{number}."
    kernel = {"D": inner.pop(start + "D", None)}
    for name in (*KERNEL_TENSORS, "Q", *DERIVED):
        kernel[name] = inner.pop(f"{start}kernel.kernel.{name}", None)
    missing = [name for name in ("D", *KERNEL_TENSORS, "omega") if kernel[name] is None]
    if missing:
        raise ValueError(f"The checkpoint does not fit the model. Missing of {start}: {missing}.")
    return kernel


def _their_key(key: str) -> str:
    """Our name of a tensor outside of convolutions -> theirs, without the prefix of the encoder."""
    key = re.sub(r"^embeddings\.pointwise\.(\d+)\.", lambda match: f"encoder.layers.{int(match[1]) + 1}.0.", key)
    return renamed(key, RENAMES)


def _their_shape(their: str, tensor: torch.Tensor) -> torch.Tensor:
    """Ours in the shape of theirs: kernels of convolutions, and a bias that is a column."""
    if their == FIRST_KEY:
        return tensor.unflatten(1, (-1, TAPS))
    if re.fullmatch(r"encoder\.layers\.\d+\.0\.weight", their):
        return tensor[..., None]
    return tensor[:, None] if their.endswith("output_linear.0.bias") else tensor


def stored_kernel(kernel: dict[str, torch.Tensor]) -> torch.Tensor:
    """The taps of the stored convolution, `(channels, L)` in float64. Q is the conjugate of P where it is left out.

    With nodes o on the unit circle, the generating function of the first L taps (S4, arXiv 2111.00396, appendix C.3)
    is 2 / (1 + o) [k_CB - k_CP k_QB / (1 + k_QP)], k_xy = dt sum over n of x_n y_n / (z - dt w_n), conjugates added,
    z = 2 (1 - o) / (1 + o). Multiplied out, so that nothing is infinite where o = -1.
    """
    step = kernel["log_dt"].reshape(-1).double().exp()
    length = 2 * (kernel["omega"].shape[-2] - 1)
    output, poles, inputs, low_rank = (_pairs(kernel[name], len(step)) for name in ("C", "w", "B", "P"))
    right = low_rank.conj() if kernel["Q"] is None else _pairs(kernel["Q"], len(step))
    nodes = torch.exp(-2j * torch.pi * torch.arange(length // 2 + 1, dtype=torch.float64) / length)[:, None]
    step = step[:, None]
    near, far = 2 * (1 - nodes), 1 + nodes  # (nodes, 1)

    def product(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """`k_xy / (1 + o)`, `(channels, nodes)`."""
        weights, scaled = (first * second)[:, None], (step * poles)[:, None]  # (channels, 1, N / 2)
        terms = weights / (near - scaled * far) + weights.conj() / (near - scaled.conj() * far)
        return step * terms.sum(-1)

    far_row = far[:, 0]
    around = far_row * product(output, low_rank) * product(right, inputs) / (1 + far_row * product(right, low_rank))
    return torch.fft.irfft(2 * (product(output, inputs) - around), n=length)


def _pairs(tensor: torch.Tensor, channels: int) -> torch.Tensor:
    """`(..., N / 2, 2)` reals as `(channels, N / 2)` complex numbers; what channels share is repeated."""
    return torch.view_as_complex(tensor.double().contiguous()).reshape(-1, tensor.shape[-2]).expand(channels, -1)


def solve_coefficients(kernel: dict[str, torch.Tensor], number: int) -> torch.Tensor:
    """Coefficients `(channels, N)` of the stored kernel in our basis, by least squares in float64."""
    taps = stored_kernel(kernel)
    if not bool(taps.isfinite().all()):
        raise ValueError(f"A kernel of layer {number} is not finite: the file holds NaN or infinite values.")
    state_size = 2 * kernel["C"].shape[-2]
    basis = state_space_basis(kernel["log_dt"].reshape(-1).double().exp(), state_size, taps.shape[1]).transpose(1, 2)
    coefficients = torch.linalg.lstsq(basis, taps[..., None]).solution
    residual = ((basis @ coefficients)[..., 0] - taps).norm(dim=1) / taps.norm(dim=1)
    if not bool((residual < LARGEST_RESIDUAL).all()):
        raise ValueError(
            f"The kernels of layer {number} are not those of a HiPPO-LegS state of {state_size}: a share of up to "
            f"{residual.max():.1e} of one lies outside. The file is of another model, or damaged."
        )
    return coefficients[..., 0].float()


def ecg_cpc_feature_extractor(config: EcgCpcConfig) -> EcgFeatureExtractor:
    """The input of the authors' evaluation: windows of 2.5 s in mV, neither filtered nor normalised, of longer records
    all; gaps interpolated."""
    return extractor_for(config, nan_policy="interpolate", long_records="all")

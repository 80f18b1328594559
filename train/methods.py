"""The pretraining methods in words: for cards and pages."""

from dataclasses import dataclass

from transformers import PreTrainedConfig


@dataclass(frozen=True)
class Method:
    """How the weights were made.

    Args:
        name (`str`): Name of the method.
        description (`str`): A sentence or two on how it learns.
        paper (`str`, *optional*): Authors, title and year.
        url (`str`, *optional*): Where the paper is.
    """

    name: str
    description: str
    paper: str | None = None
    url: str | None = None


METHODS = {
    "ecg_jepa": Method(
        name="ECG-JEPA",
        description=(
            "A student encoder sees part of a recording; a predictor has to infer, from it, what a slowly moving "
            "teacher makes of the hidden part. No labels are used and no signal is reconstructed."
        ),
        paper=(
            "Sehun Kim: Learning General Representation of 12-Lead Electrocardiogram with a Joint-Embedding "
            "Predictive Architecture, 2024"
        ),
        url="https://arxiv.org/abs/2410.08559",
    ),
    "ecg_jepa segments": Method(
        name="ECG-JEPA (temporal segments)",
        description=(
            "A student encoder sees a few segments of a recording, all leads at once; a predictor has to infer, from "
            "them, what a slowly moving teacher makes of the hidden time. No labels are used and no signal is "
            "reconstructed."
        ),
        paper=(
            "Kuba Weimann and Tim O. F. Conrad: Self-Supervised Pre-Training with Joint-Embedding Predictive "
            "Architecture Boosts ECG Classification Performance, 2024"
        ),
        url="https://arxiv.org/abs/2410.13867",
    ),
    "kernel_response": Method(
        name="Prediction of random-kernel responses",
        description=(
            "Fixed random convolutions answer to a recording; the encoder sees altered windows of it, with noise, "
            "hidden time and absent leads, and has to tell the pooled answers. Fixed targets cannot collapse. No "
            "teacher and no labels."
        ),
    ),
    "ecg_cpc": Method(
        name="ECG-CPC",
        description=(
            "A causal encoder of state spaces predicts, at every moment, what its first layers make of the signal "
            "117 ms later, and has to tell it from other moments of the same recording. No teacher and no labels."
        ),
        paper="Al-Masud, Lopez Alcaraz and Strodthoff, 2025 (in their benchmark of ECG foundation models)",
        url="https://arxiv.org/abs/2509.25095",
    ),
    "ecg_s4_jepa": Method(
        name="JEPA on state spaces",
        description=(
            "An encoder of state spaces sees a recording with hidden blocks and predicts what a slowly moving teacher "
            "makes of them. No labels are used and no signal is reconstructed."
        ),
        paper="Al-Masud, Lopez Alcaraz and Strodthoff, 2026 (one of five objectives)",
        url="https://arxiv.org/abs/2605.12241",
    ),
    "ecg_s4": Method(name="ECG state-space encoder", description="An encoder of electrocardiograms without a head."),
    "lenepa": Method(
        name="LeNEPA",
        description=(
            "A causal encoder predicts, from each 50 ms of a recording, the embedding of the next, and the moments of "
            "every recording have to look like a standard normal cloud (SIGReg), which keeps them from collapsing. No "
            "teacher, no masks and no labels."
        ),
        paper="Chemeris, Jin and Balestriero, 2026",
        url="https://arxiv.org/abs/2607.00958",
    ),
    "lejepa": Method(
        name="LeJEPA",
        description=(
            "Several altered views of a recording have to get the same embedding (invariance), and the embeddings of "
            "all recordings have to look like a standard normal cloud (SIGReg), which keeps them from collapsing. No "
            "teacher and no labels."
        ),
        paper=(
            "Randall Balestriero and Yann LeCun: LeJEPA: Provable and Scalable Self-Supervised Learning Without the "
            "Heuristics, 2025"
        ),
        url="https://arxiv.org/abs/2511.08544",
    ),
    "sigreg_jepa": Method(
        name="Masked JEPA with SIGReg",
        description=(
            "One encoder sees part of a recording, and a predictor has to infer from it what the same encoder makes "
            "of the hidden part; SIGReg keeps the features from collapsing. No teacher and no labels."
        ),
    ),
    "st_mem": Method(
        name="ST-MEM",
        description=(
            "Three quarters of the patches of every lead are hidden; a decoder reconstructs them, lead by lead, from "
            "what the encoder makes of the others."
        ),
        paper=(
            "Yeongyeon Na et al.: Guiding Masked Representation Learning to Capture Spatio-Temporal Relationship of "
            "Electrocardiogram, 2024"
        ),
        url="https://arxiv.org/abs/2402.09450",
    ),
    "mtae": Method(
        name="MTAE, a masked time autoencoder",
        description="Three quarters of the moments are hidden in all leads, and a decoder reconstructs them.",
        paper="Yeongyeon Na et al., 2024 (a baseline of ST-MEM)",
        url="https://arxiv.org/abs/2402.09450",
    ),
    "mlae": Method(
        name="MLAE, a masked lead autoencoder",
        description="Three quarters of the leads are hidden, and a decoder reconstructs them from the others.",
        paper="Yeongyeon Na et al., 2024 (a baseline of ST-MEM)",
        url="https://arxiv.org/abs/2402.09450",
    ),
    "vqvae": Method(
        name="VQ-VAE",
        description=(
            "An encoder turns every moment of a recording into one code of a learned codebook, and a decoder "
            "reconstructs the signal from the codes."
        ),
        paper="Aaron van den Oord et al.: Neural Discrete Representation Learning, 2017",
        url="https://arxiv.org/abs/1711.00937",
    ),
    "ecg_hubert": Method(
        name="HuBERT-ECG",
        description="A HuBERT on all leads, joined to one sequence: it predicts the clusters of hidden moments.",
        paper=(
            "Edoardo Coppola et al.: HuBERT-ECG as a self-supervised foundation model for broad and scalable cardiac "
            "applications, 2024"
        ),
        url="https://doi.org/10.1101/2024.11.14.24317328",
    ),
    "ecg_fm": Method(
        name="ECG-FM",
        description=(
            "A wav2vec 2.0 that reads all leads at once, pretrained to tell hidden moments from others and one "
            "patient's segments from another's, with random leads put to zero (W2V + CMSC + RLM)."
        ),
        paper="Kaden McKeen et al.: ECG-FM: An Open Electrocardiogram Foundation Model, 2024",
        url="https://arxiv.org/abs/2408.05178",
    ),
    "ecg_founder": Method(
        name="ECGFounder",
        description=(
            "A convolutional network trained **with labels**, 150 of them. A probe of such features is no measure of "
            "learning without labels."
        ),
        paper=(
            "Jun Li et al.: An Electrocardiogram Foundation Model Built on over 10 Million Recordings with External "
            "Evaluation across Multiple Domains, 2024"
        ),
        url="https://arxiv.org/abs/2410.04133",
    ),
    "ecg_conv": Method(
        name="Convolutional ECG encoder", description="An encoder of electrocardiograms without a head."
    ),
    "ecg_vit": Method(name="ECG vision transformer", description="An encoder of electrocardiograms without a head."),
}


def method_of(config: PreTrainedConfig) -> Method:
    """The method of a model: by its `model_type`, and ECG-JEPA's two by their masks. Others have but a name."""
    if config.model_type == "ecg_jepa" and config.mask_type == "segments":
        return METHODS["ecg_jepa segments"]
    elsewhere = Method(name=config.model_type, description="A method from outside of ecg-transformers.")
    return METHODS.get(config.model_type, elsewhere)

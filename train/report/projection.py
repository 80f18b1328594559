"""Features of the test records on a plane, coloured by class: PCA and t-SNE.

A picture, no measurement: what lies apart on the plane is apart, what lies together need not be together. The random
encoder stands above the pretrained one here too.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from ..features import EmbeddingTable
from .plots import CURVE_COLORS, LIGHT_GREY

SEED = 0
MOST_RECORDS = 2000
"""Drawn and projected: t-SNE of more takes minutes, and the dots hide each other."""
MOST_CLASSES = len(CURVE_COLORS)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
METHODS = ("PCA", "t-SNE")
ROWS = {"random_encoder": "random encoder", "pretrained": "pretrained encoder"}


def project(features: np.ndarray, method: str) -> tuple[np.ndarray, str]:
    """Features `(num_records, hidden_size)` of at least three records on a plane `(num_records, 2)`, and its title: of
    PCA with the shares of the variance, of t-SNE with its perplexity."""
    scale = features.std(axis=0)
    standardised = ((features - features.mean(axis=0)) / np.where(scale > 0, scale, 1)).astype(np.float64)
    if method == "PCA":
        pca = PCA(2, svd_solver="full").fit(standardised)
        first, second = pca.explained_variance_ratio_
        return pca.transform(standardised), f"PCA ({first:.0%} and {second:.0%} of the variance)"
    perplexity = min(30.0, (len(features) - 1) / 3)
    plane = TSNE(2, perplexity=perplexity, init="pca", random_state=SEED).fit_transform(standardised)
    return plane, f"t-SNE (perplexity {perplexity:.0f})"


def plot_projection(
    tables: Mapping[str, EmbeddingTable], label_names: Sequence[str], values: np.ndarray | None = None
) -> Figure:
    """A row of planes an encoder (`random_encoder`, `pretrained`), a column a method.

    The most frequent classes of `label_names` get a colour and a marker; records with several or none, or of other
    classes, are grey. `values` are a target of a regression, named by the only label, to colour by instead.
    """
    encoders = [encoder for encoder in ROWS if encoder in tables]
    figure = Figure(figsize=(4.4 * len(METHODS), 0.5 + 4.0 * len(encoders)), layout="constrained")
    grid = figure.subplots(len(encoders), len(METHODS), squeeze=False)
    for row, encoder in enumerate(encoders):
        table = tables[encoder]
        kept = np.arange(len(table))
        if len(kept) > MOST_RECORDS:
            kept = np.sort(np.random.default_rng(SEED).choice(len(kept), MOST_RECORDS, replace=False))
        known = [[label for label in table.labels[record] if label in label_names] for record in kept]
        classes = [labels[0] if len(labels) == 1 else None for labels in known]
        for column, method in enumerate(METHODS):
            axes = grid[row, column]
            plane, title = project(table.features[kept], method)
            if values is None:
                _draw_classes(axes, plane, classes, is_named=row == column == 0)
            else:
                drawn = axes.scatter(*plane.T, c=values[kept], s=14, cmap="viridis", linewidths=0)
                if column == len(METHODS) - 1:
                    figure.colorbar(drawn, ax=axes, label=label_names[0])
            axes.set_title(f"{ROWS[encoder]}: {title}", fontsize=9)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_color("#cccccc")
    if values is None:
        figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    return figure


def _draw_classes(axes: Axes, plane: np.ndarray, classes: Sequence[str | None], is_named: bool) -> None:
    frequent = [name for name, _ in Counter(filter(None, classes)).most_common(MOST_CLASSES)]
    others = np.array([name not in frequent for name in classes])
    if others.any():
        label = "several, none or a rarer class" if is_named else None
        axes.plot(*plane[others].T, ".", color=LIGHT_GREY, markersize=5, label=label)
    for number, name in enumerate(frequent):
        of_class = np.array([other == name for other in classes])
        style = {"color": CURVE_COLORS[number], "marker": MARKERS[number], "markersize": 5, "markeredgewidth": 0}
        axes.plot(*plane[of_class].T, linestyle="none", alpha=0.8, label=name if is_named else None, **style)

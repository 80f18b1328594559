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
from sklearn.preprocessing import StandardScaler

from ..features import EmbeddingTable
from .page import ReportFigure, Section
from .plots import CURVE_COLORS, LIGHT_GREY

SEED = 0
MOST_RECORDS = 2000
"""Drawn and projected: t-SNE of more takes minutes, and the dots hide each other."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
METHODS = ("PCA", "t-SNE")
ROWS = {"random_encoder": "random encoder", "pretrained": "pretrained encoder"}


def features_section(tables: Mapping[str, EmbeddingTable], label_names: Sequence[str]) -> Section:
    """Features of the test split on a plane, folded."""
    num_records = len(next(iter(tables.values())))
    many = f" {MOST_RECORDS} of {num_records} records, drawn at random." if num_records > MOST_RECORDS else ""
    caption = (
        f"Features of the test records, each standardised, coloured by their class, by {', '.join(METHODS)}. A "
        f"picture, not a measurement: t-SNE makes clusters of noise too, distances between groups mean nothing.{many}"
    )
    alt = f"Points of the test records on planes by {', '.join(METHODS)}, for {', '.join(tables)}"
    drawn = ReportFigure(plot_projection(tables, label_names), "Test records", caption, alt, wide=True)
    return Section("Features on a plane", figures=(drawn,), folded=True)


def project(features: np.ndarray, method: str) -> tuple[np.ndarray, str]:
    """Features `(num_records, hidden_size)` of at least three records on a plane `(num_records, 2)`, and its title: of
    PCA with the shares of the variance, of t-SNE with its perplexity."""
    standardised = StandardScaler().fit_transform(features.astype(np.float64))
    if method == "PCA":
        pca = PCA(2, svd_solver="full").fit(standardised)
        first, second = pca.explained_variance_ratio_
        return pca.transform(standardised), f"PCA ({first:.0%} and {second:.0%} of the variance)"
    perplexity = min(30.0, (len(features) - 1) / 3)
    plane = TSNE(2, perplexity=perplexity, init="pca", random_state=SEED).fit_transform(standardised)
    return plane, f"t-SNE (perplexity {perplexity:.0f})"


def plot_projection(tables: Mapping[str, EmbeddingTable], label_names: Sequence[str]) -> Figure:
    """A row of planes an encoder (`random_encoder`, `pretrained`), a column a method.

    The most frequent classes of `label_names` get a colour and a marker; records with several or none, or of other
    classes, are grey.
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
        for axes, method in zip(grid[row], METHODS, strict=True):
            plane, title = project(table.features[kept], method)
            _draw_classes(axes, plane, classes, is_named=axes is grid[0, 0])
            axes.set_title(f"{ROWS[encoder]}: {title}", fontsize=9)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_color("#cccccc")
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    return figure


def _draw_classes(axes: Axes, plane: np.ndarray, classes: Sequence[str | None], is_named: bool) -> None:
    frequent = [name for name, _ in Counter(filter(None, classes)).most_common(len(MARKERS))]
    others = np.array([name not in frequent for name in classes])
    if others.any():
        label = "several, none or a rarer class" if is_named else None
        axes.plot(*plane[others].T, ".", color=LIGHT_GREY, markersize=5, label=label)
    for number, name in enumerate(frequent):
        of_class = np.array([other == name for other in classes])
        style = {"color": CURVE_COLORS[number], "marker": MARKERS[number], "markersize": 5, "markeredgewidth": 0}
        axes.plot(*plane[of_class].T, linestyle="none", alpha=0.8, label=name if is_named else None, **style)

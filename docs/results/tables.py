"""Writes the tables of results in README.md and docs/results.md anew from what the runs left in this folder.

    python -m docs.results.tables           # writes them
    python -m docs.results.tables --check   # names those that are not what it would write, and fails

A table stands below a comment with its name: <!-- table: initialisation -->.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monet_perception.files import write_text
from train.report import THESIS_TABLES, Score
from train.runs import read_validations

HERE = Path(__file__).parent
PAGES = (HERE.parents[1] / "README.md", HERE.parent / "results.md")
ROOMS, RING, SIX, SAME = "rooms_test", "rooms_ring", "rooms_six", "rooms_same"
SAME_SHIPPED = "rooms_same_seed4"
SHIPPED = "recipe/crowded_again"
TABLE = re.compile(r"<!-- table: (?P<name>\w+) -->\n\n(?P<rows>(?:\|.*\n)+)")


class Measured:
    """What `python -m train.evaluate --json` wrote, by store and run."""

    def __init__(self, path: str) -> None:
        content = json.loads((HERE / path).read_text())
        self._networks = {(Path(one["store"]).name, _run(one["checkpoint"])): one for one in content["networks"]}
        self._models = {(Path(one["store"]).name, one["model"]): one for one in content["models"]}

    def entry(self, store: str, run: str | None = None) -> dict[str, Any]:
        """One network on one store; `run` may be left out where only one network was measured."""
        (found,) = (one for key, one in self._networks.items() if key[0] == store and run in (None, key[1]))
        return found

    def model(self, store: str, name: str) -> dict[str, Any]:
        """The scores of what was measured under a name."""
        scores: dict[str, Any] = self._models[store, name]["scores"]
        return scores

    def text(self, store: str, run: str | None, name: str, digits: int = 1, *, interval: bool = False) -> str:
        """A score in percent, an MSE in 1e-3; with its bootstrap interval where that was measured."""
        entry = self.entry(store, run)
        if not interval:
            return number(entry["scores"][name], name, digits)
        found = self._models[store, entry["model"]]["scores"][name]
        return Score(found["value"], found["low"], found["high"]).text(_scale(name), digits)


def _run(checkpoint: str) -> str:
    return Path(checkpoint).parent.name


def _scale(name: str) -> int:
    return 1000 if name.startswith("mse") else 100


def number(value: float, name: str, digits: int = 1) -> str:
    """A score in percent, an MSE in 1e-3."""
    return Score(value).text(_scale(name), digits)


def validations(run: str) -> dict[int, dict[str, float]]:
    """What a run's validations found, by step."""
    return {found["step"]: found for found in read_validations(HERE / run)}


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("|" + "|".join(f" {cell} " if cell else " " for cell in line) + "|\n" for line in lines)


def summary() -> str:
    """The shipped network, and table 5.2 of the thesis."""
    scores = Measured(f"{SHIPPED}/evaluation.json")
    stores = {
        "shipped network, rendered rooms": ROOMS,
        "rooms seen from other camera positions": RING,
        "rooms with four to six objects": SIX,
    }
    rows = [[label, *_three(scores.entry(store)["scores"])] for label, store in stores.items()]
    ours = ("MONet", "MONet-RN50", "MONet-RN50*")
    published = {name: THESIS_TABLES["5.2"].published[name] for name in ours}
    for name, cells in published.items():
        rows.append([f"*{cell}*" for cell in (f"{name}, the thesis".replace("*", "\\*"), *cells)])
    return markdown(["model", "ARI (%)", "MSC (%)", "MSE (1e-3)"], rows)


def _three(scores: dict[str, float]) -> list[str]:
    return [number(scores["ari"], "ari"), number(scores["msc"], "msc"), number(scores["mse"], "mse", 2)]


def shipped() -> str:
    """The shipped network on four stores."""
    scores = Measured(f"{SHIPPED}/evaluation.json")
    stores = {
        "test: `--seed 2`": ROOMS,
        "another camera ring: `--seed 3 --variant other_ring`": RING,
        "four to six objects: `--seed 5 --variant six_objects`": SIX,
        "four to six objects of the same colour: `--seed 4 --variant identical_color`": SAME_SHIPPED,
    }
    rows = [
        [
            label,
            f"{scores.entry(store)['images']:,}",
            *(scores.text(store, None, name) for name in ("ari", "ari_multi", "ari_all", "msc")),
            scores.text(store, None, "mse", 2),
        ]
        for label, store in stores.items()
    ]
    rooms = "[rooms](reproduction.md#rendered-stores) never seen in training"
    names = ["ARI (%)", "ARI, 2+ objects (%)", "ARI, all pixels (%)", "MSC (%)", "MSE (1e-3)"]
    return markdown([rooms, "images", *names], rows)


def objects() -> str:
    """The shipped network by number of visible objects."""
    scores = Measured(f"{SHIPPED}/evaluation.json")
    chosen = [("test", ROOMS, "123"), ("four to six objects", SIX, "3456"), ("same colour", SAME_SHIPPED, "3456")]
    rows = []
    for label, store, counts in chosen:
        for count in counts:
            found = scores.entry(store)["by_objects"][count]
            rows.append([f"{label}, {count}", f"{found['images']:,.0f}", *_three(found)])
    return markdown(["rooms by visible objects", "images", "ARI (%)", "MSC (%)", "MSE (1e-3)"], rows)


def disentanglement() -> str:
    """How the shipped network's latents disentangle the factors."""
    (found,) = json.loads((HERE / SHIPPED / "disentanglement.json").read_text())["networks"]
    dci, infomec = found["dci"], found["infomec"]
    row = [
        " / ".join(f"{dci[name]:.2f}" for name in ("disentanglement", "completeness", "informativeness")),
        *(f"{found[name]:.2f}" for name in ("mig", "sap", "factor_vae")),
        " / ".join(f"{infomec[name]:.2f}" for name in ("modularity", "explicitness", "compactness")),
    ]
    return markdown(
        ["DCI disentanglement / completeness / informativeness", "MIG", "SAP", "FactorVAE", "InfoM / E / C"], [row]
    )


def recipe() -> str:
    """The training of the shipped network, some of its validations."""
    stages = [
        ("masks of clutter; tabletops never trained on", "masks", (1000, 3000, 4000, 5000)),
        ("rooms: component VAE alone", "rooms", (1000, 4000)),
        ("both", "rooms", (5000, 7000, 9000, 10000)),
        ("rooms of one to six objects: both", "crowded", (1500, 4500, 9000)),
        ("once more, the attention at twice the rate", "crowded_again", (750, 2250, 4500)),
    ]
    rows = []
    for label, run, steps in stages:
        found = validations(f"recipe/{run}")
        best = max(found, key=lambda step: found[step]["ari_multi"])
        for step in steps:
            one = found[step]
            scores = [number(one[name], name) for name in ("ari_multi", "msc")]
            mse = number(one["mse"], "mse") if "mse" in one else ""
            place = f"{step:,}" + (", the best" if step == best else "")
            first = label if step == steps[0] else ""
            rows.append([first, place, f"{one['minutes']:.0f}", *scores, mse, f"{one['active_slots']:.1f}"])
    names = ["ARI, 2+ objects (%)", "MSC (%)", "MSE (1e-3)", "active slots"]
    return markdown(["recipe", "step", "minutes", *names], rows)


def after_300k() -> str:
    """The thesis's three after 300,000 images."""
    networks = [
        ("MONet, **cut off**", "monet_0", 6000),
        ("MONet-RN50", "rn50_0", 9000),
        ("MONet-RN50\\*", "star_0", 9000),
    ]
    rows = []
    for label, run, last in networks:
        scores = Measured(f"300k/{run}/evaluation.json")
        row = [label, f"{scores.entry(ROOMS)['training']['images']:,}"]
        row += [f"{validations(f'300k/{run}')[last]['minutes']:.1f}"]
        row += [scores.text(ROOMS, None, "ari", interval=True)]
        row += [scores.text(ROOMS, None, name) for name in ("ari_multi", "ari_all")]
        row += [scores.text(ROOMS, None, "msc", interval=True), scores.text(ROOMS, None, "mse", 2, interval=True)]
        row += [", ".join(scores.text(SAME, None, name) for name in ("ari", "msc"))]
        rows.append(row)
    names = ["ARI (%)", "ARI, 2+ objects (%)", "ARI, all pixels (%)", "MSC (%)", "MSE (1e-3)"]
    minutes = "minutes up to the last validation, sharing the GPU"
    return markdown(["network", "images seen", minutes, *names, "same colour: ARI, MSC (%)"], rows)


def after_192k() -> str:
    """The thesis's three at the validation after 192,000 images."""
    rows = []
    for label, run in (("MONet", "monet_0"), ("MONet-RN50", "rn50_0"), ("MONet-RN50\\*", "star_0")):
        found = validations(f"300k/{run}")[6000]
        rows.append(
            [label, *(number(found[name], name) for name in ("ari_multi", "msc")), number(found["mse"], "mse", 2)]
        )
    return markdown(["after 192,000 images", "ARI, 2+ objects (%)", "MSC (%)", "MSE (1e-3)"], rows)


def after_8k() -> str:
    """The thesis's three after 8,000 images."""
    scores = Measured("8k/evaluation.json")
    networks = [
        ("MONet, seed 0", "monet_0"),
        ("seed 1", "monet_1"),
        ("MONet-RN50, seed 0", "rn50_0"),
        ("seed 1", "rn50_1"),
        ("MONet-RN50\\*, seed 0", "rn50_star_0"),
        ("seed 1", "rn50_star_1"),
        ("MONet-RN50\\*, pre-trained on masks of clutter, attention held", "rn50_star_held_0"),
    ]
    rows = [
        [
            label,
            *(scores.text(ROOMS, run, name) for name in ("ari", "msc", "mse")),
            scores.text(SAME, run, "ari"),
            f"{scores.entry(ROOMS, run)['training']['minutes']:.0f}",
        ]
        for label, run in networks
    ]
    head = ["1,000 test rooms of `--seed 2`", "ARI (%)", "MSC (%)", "MSE (1e-3)"]
    return markdown([*head, "ARI, same colour (`data/rooms_same`)", "minutes by the clock, beside other work"], rows)


def initialisation() -> str:
    """Table 5.1's question after 8,000 images."""
    scores = Measured("8k/initialisation.json")
    networks = [
        ("MONet", "default", "monet_default_0"),
        ("MONet", "Kaiming", "monet_0"),
        ("MONet-RN50", "default", "rn50_default_0"),
        ("MONet-RN50", "Kaiming", "rn50_0"),
    ]
    rows = [
        [network, start, *(scores.text("rooms_val", run, name, interval=True) for name in ("ari", "msc", "mse"))]
        for network, start, run in networks
    ]
    return markdown(["network", "initialisation", "ARI (%)", "MSC (%)", "MSE (1e-3)"], rows)


def tabletop() -> str:
    """Table 5.4's question after 4,000 and 48,000 tabletop scenes."""
    short = Measured("tabletop_4k/evaluation.json")
    networks = [
        ("MONet", short, "tabletop_4k/monet_0", 500),
        ("MONet-RN50\\*", short, "tabletop_4k/star_0", 500),
        ("MONet-RN50\\*", Measured("tabletop_48k/star/evaluation.json"), "tabletop_48k/star", 1500),
    ]
    rows = []
    for label, scores, folder, step in networks:
        last, run = validations(folder)[step], Path(folder).name
        row = [label, f"{last.get('images', 8 * step):,.0f}"]
        row += [scores.text("tabletop_test", run, "ari", interval=True)]
        row += [scores.text("tabletop_test", run, "ari_all")]
        row += [scores.text("tabletop_test", run, name, interval=True) for name in ("msc", "mse")]
        rows.append([*row, f"{last['mask_entropy']:.2f}", f"{last['largest_slot']:.0%}".replace("%", " %")])
    masks = ["mask entropy, of 2.40 nats (validation)", "pixels in the largest slot (validation)"]
    return markdown(["network", "images", "ARI (%)", "ARI, all pixels (%)", "MSC (%)", "MSE (1e-3)", *masks], rows)


def transfer() -> str:
    """The shipped network on tabletops, which it never saw, and what fine-tuning brings."""
    scores = Measured("tabletop_48k/evaluation.json")
    networks = [
        ("shipped, trained on rooms", "data"),
        ("fine-tuned on tabletops without labels, 3,000 steps", "tuned"),
        ("from scratch on tabletops, 3,000 steps", "scratch"),
    ]
    rows = []
    for label, run in networks:
        found = scores.entry("tabletop_test", run)["by_objects"]
        row = [label, *_three(scores.entry("tabletop_test", run)["scores"])]
        for counts in (range(3, 7), range(7, 11)):
            group = [found[str(count)] for count in counts]
            images = [one["images"] for one in group]
            for name in ("ari", "msc"):
                row.append(number(float(np.average([one[name] for one in group], weights=images)), name))
        rows.append(row)
    groups = [f"{count} objects: {score} (%)" for count in ("3 to 6", "7 to 10") for score in ("ARI", "MSC")]
    return markdown(["network", "ARI (%)", "MSC (%)", "MSE (1e-3)", *groups], rows)


def household() -> str:
    """The network for real cameras and the one for rooms, on models and photographs that they were never trained on."""
    scores = Measured("household/evaluation.json")
    stores = {
        "household scenes (`--seed 42`)": "household_test",
        "of models and photographs of other sources (`--seed 43`)": "household_other",
        "rooms (`--seed 2`)": ROOMS,
    }
    rows = []
    for label, store in stores.items():
        for network in ("rooms", "household"):
            found = scores.model(store, network)
            values = [number(found[name]["value"], name) for name in ("ari", "ari_multi", "msc")]
            rows.append([label, f"`{network}`", *values, number(found["mse"]["value"], "mse", 2)])
            label = ""
    names = ["ARI (%)", "ARI, 2+ objects (%)", "MSC (%)", "MSE (1e-3)"]
    return markdown(["scenes never trained on", "network", *names], rows)


TABLES: dict[str, Callable[[], str]] = {
    made.__name__: made
    for made in (
        summary, shipped, objects, disentanglement, recipe, after_300k, after_192k, after_8k, initialisation, tabletop,
        transfer, household,
    )
}  # fmt: skip


def renew(page: Path, *, write: bool) -> list[str]:
    """Makes a page's tables; returns the names of those that are not what the page had."""
    before = page.read_text()
    after = TABLE.sub(lambda match: f"<!-- table: {match['name']} -->\n\n{TABLES[match['name']]()}", before)
    if write and after != before:
        write_text(page, after)
    pairs = zip(TABLE.finditer(before), TABLE.finditer(after), strict=True)
    return [old["name"] for old, new in pairs if old[0] != new[0]]


def main() -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing")
    options = parser.parse_args()
    named = [match["name"] for page in PAGES for match in TABLE.finditer(page.read_text())]
    if sorted(named) != sorted(TABLES):
        print(f"error: the pages have the tables {sorted(named)}, here are made {sorted(TABLES)}", file=sys.stderr)
        return 1
    stale = [name for page in PAGES for name in renew(page, write=not options.check)]
    if options.check and stale:
        print(f"error: {', '.join(stale)} would change; python -m docs.results.tables writes them", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

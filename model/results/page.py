"""The results page as Markdown, and the pictures beside it. Every number and every verdict is computed."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean

from model.evaluation.paired import Difference
from model.evaluation.plots import draw_crops, draw_curve, draw_q_maps, draw_sweep
from model.evaluation.protocol import Pair
from model.evaluation.table import DIGITS, HEADERS, Row, shown, straight
from model.results.measuring import PROTOCOLS, Q_DEFINITION, QUALITIES, Results, Study
from model.results.runs import CONTROL
from model.shipped import BOX
from model.weights import Card, replace_file

__all__ = ["page", "write_page"]

KODAK = PROTOCOLS[0]
TITLES = {"paper-kodak": "Kodak", "paper-bsds": "BSDS500"}
# Pictures in a drawing.
ROWS = 4

ABOUT = """\
The networks in `weights/` on the pictures that the paper tests on. `python -m model results` makes this page;
its numbers picture by picture are beside it in [{folder}/]({folder}).
"""
CANNOT = """\
What this cannot say: every network is trained once, and another seed would move every mean; intervals are
over pictures alone. The blur here is a box of 5 x 5 pixels, exactly as in training; photographs out of focus
have another, and these networks do not take it away. The paper's networks saw {theirs:.2f} million crops in
each stage, the first of ours {ours:.2f} million, of other photographs: its rows are a direction to go in and
no contest.
"""
# Of the paper: 100 epochs of 134,400 crops.
PAPER_CROPS = 100 * 134_400


def write_page(path: Path, results: Results) -> list[Path]:
    """Write the page, its pictures and its numbers.

    Returns:
        What was written, the page first.

    Raises:
        UserError: if something cannot be written.
    """
    folder = path.with_suffix("")
    written = [path, folder / "crops.png", folder / "q_maps.png", folder / "dial.png"]
    table, pairs = results.tables[KODAK]
    chosen = telling(results, pairs)
    methods = [table.rows[0].labels[0], results.soft, *_extremes(results), results.sharp]
    drawn = [
        one
        for method in dict.fromkeys(methods)
        for one in table.measurements
        if one.method == method and one.image in {pair.name for pair in chosen}
    ]
    draw_crops(written[1], chosen, drawn, side=48)
    draw_q_maps(written[2], chosen, drawn, Q_DEFINITION)
    draw_curve(written[3], results.dial, "sharpness")
    if results.weights_of_q:
        written.append(folder / "sweep.png")
        draw_sweep(written[-1], table.rows)
    for protocol, (one, _) in results.tables.items():
        written.append(folder / f"{TITLES[protocol].lower()}.csv")
        replace_file(written[-1], one.per_image_csv().encode())
    replace_file(path, page(results, folder.name).encode())
    return written


def _extremes(results: Results) -> list[str]:
    """The control and the largest w, which show what Q does."""
    names = results.weights_of_q
    return [names[0], names[-1]] if names else []


def telling(results: Results, pairs: Sequence[Pair]) -> list[Pair]:
    """Pictures to show: those that the largest w, or else the recommended network, changes most."""
    control, last = _extremes(results) or [results.soft, results.sharp]
    before, after = (results.overshoots(KODAK, name) for name in (control, last))
    order = sorted(pairs, key=lambda pair: before[pair.name] - after[pair.name])
    names = {pair.name for pair in order[:ROWS]}
    return [pair for pair in pairs if pair.name in names]


def page(results: Results, folder: str) -> str:
    """The page; `folder` is where its pictures lie beside it."""
    crops = results.cards[results.soft].training["crops"]
    cannot = CANNOT.format(theirs=PAPER_CROPS / 1e6, ours=crops / 1e6)
    parts = ["# Results", ABOUT.format(folder=folder)]
    parts += ["## Reading", "\n".join(_reading(results)), cannot]
    parts += ["## The networks", *_networks(results)]
    for protocol, (table, _) in results.tables.items():
        title = TITLES[protocol]
        head = f"## {title}, beside the paper's Table I" if table.published else f"## {title}"
        parts += [head, table.markdown()]
        if protocol == KODAK and results.weights_of_q:
            parts.append(
                "w = 0 goes on with MAE alone for as many steps on the same crops: the control. The paper's "
                "w = 0 is its network before fine-tuning."
            )
    if results.weights_of_q:
        parts += ["## What Q does beyond more training", *_against_control(results)]
        parts += [f"![Each metric against w]({folder}/sweep.png)"]
    parts += ["## The dial", *_dial(results, folder)]
    parts += ["## Where it rings", *_ringing(results)]
    parts += [
        f"The pictures of Kodak in which {_shown_because(results)}, enlarged where blurring took most away:",
        f"![Crops]({folder}/crops.png)",
        "Q of each patch of 8 x 8 pixels in the same pictures:",
        f"![Maps of Q]({folder}/q_maps.png)",
    ]
    if results.study:
        parts += ["## How the loss was chosen", *_study(results.study)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _shown_because(results: Results) -> str:
    names = _extremes(results) or [results.soft, results.sharp]
    return f"{names[-1]} overshoots most beyond {names[0]}"


def _networks(results: Results) -> Iterator[str]:
    lines = [["weights", "loss", "steps", "crops", "of", "hours", "machine"]]
    for name in (results.soft, results.sharp):
        card = results.cards[name]
        training, config = card.training, card.training["config"]
        lines.append(
            [
                f"{name}.safetensors",
                _loss(card),
                f"{training['steps']:,}",
                f"{training['crops']:,}",
                f"{config['crop']} x {config['crop']}",
                f"{training['seconds'] / 3600:.2f}",
                str(training["device"]),
            ]
        )
    yield straight(lines)
    data = results.cards[results.soft].training.get("data")
    if data:
        yield f"Trained on: {data}."


def _loss(card: Card) -> str:
    if "weight" not in card.loss and card.loss["name"] != "mae":
        return str(card.loss["name"])
    weight = card.loss.get("weight", 0)
    if not weight:
        return "MAE"
    extra = [str(card.loss["definition"])] if "definition" in card.loss else []
    extra += [f"eps {card.loss['eps']:g}"] if card.loss.get("eps") else []
    extra += ["random grid"] if card.loss.get("offset") == "random" else []
    return f"MAE - {weight:g} Q ({', '.join(extra)})"


def _against_control(results: Results) -> Iterator[str]:
    yield (
        "Each network against the control, picture by picture: mean and 95 % interval of the differences. "
        "Lower LPIPS is better."
    )
    for protocol in results.tables:
        yield f"### {TITLES[protocol]}"
        yield _difference_table(
            {
                name: results.differences(protocol, name, CONTROL)
                for name in (results.soft, *results.weights_of_q, results.sharp)
                if name != CONTROL
            },
            f"against {CONTROL}",
        )


def _difference_table(rows: Mapping[str, Mapping[str, Difference]], head: str) -> str:
    lines = [[head, *(HEADERS[metric] for metric in QUALITIES)]]
    for name, found in rows.items():
        cells = [found[metric].shown(metric) if metric in found else "n/a" for metric in QUALITIES]
        lines.append([name, *cells])
    return straight(lines)


def _means(rows: Sequence[Row], head: str) -> str:
    lines = [[head, *(HEADERS[metric] for metric in QUALITIES)]]
    lines += [[row.labels[0], *(shown(metric, row.values[metric]) for metric in QUALITIES)] for row in rows]
    return straight(lines)


def _dial(results: Results, folder: str) -> Iterator[str]:
    yield (
        "`python -m model deblur photo.jpg --blur box --sharpness S`: the weights between the two networks, "
        f"on Kodak. 0 is {results.soft}, 1 is {results.sharp}. By itself the dial stands at {BOX.default:g}, "
        "chosen on photographs kept from training: the largest eighth at which PSNR was not below that at 0."
    )
    yield _means(results.dial, "sharpness")
    yield f"![Each metric along the dial]({folder}/dial.png)"
    if len(results.dial) > 2:
        measured = [
            metric for metric in QUALITIES if all(row.values[metric] is not None for row in results.dial)
        ]
        smooth = [HEADERS[metric] for metric in measured if _monotone(results.dial, metric)]
        bumps = [HEADERS[metric] for metric in measured if not _monotone(results.dial, metric)]
        words = [f"{', '.join(smooth)}: each step goes the same way as the last"] if smooth else []
        words += [f"{', '.join(bumps)}: not all steps go the same way"] if bumps else []
        yield ". ".join(words) + "."


def _monotone(rows: Sequence[Row], metric: str) -> bool:
    values = [row.values[metric] for row in rows]
    steps = [after - before for before, after in pairwise(values)]  # type: ignore[operator]
    return all(step >= 0 for step in steps) or all(step <= 0 for step in steps)


def _ringing(results: Results) -> Iterator[str]:
    yield (
        "Mean number of grey levels by which pixels leave the range that the sharp picture has in the 5 x 5 "
        "around them. Halos beside edges do, and texture that is not there; the sharp picture never does."
    )
    names = dict.fromkeys([results.soft, *results.weights_of_q, results.sharp])
    lines = [["", *(TITLES[protocol] for protocol in results.tables), "most in (Kodak)"]]
    for name in names:
        kodak = results.overshoots(KODAK, name)
        worst = max(kodak, key=lambda image: kodak[image])
        means = [f"{fmean(results.overshoots(protocol, name).values()):.3f}" for protocol in results.tables]
        lines.append([name, *means, f"{worst} ({kodak[worst]:.2f})"])
    yield straight(lines)


def _study(study: Study) -> Iterator[str]:
    yield (
        "Fine-tuning from the MAE weights, on the same crops for the same number of steps; only the loss "
        "differs. " + study.note
    )
    lines = [["run", "loss", "steps", *(HEADERS[metric] for metric in QUALITIES)]]
    for row in study.rows:
        name = row.labels[0]
        card = study.cards.get(name)
        lines.append(
            [
                name,
                _loss(card) if card else "",
                str(card.training["steps"]) if card else "",
                *(shown(metric, row.values[metric]) for metric in QUALITIES),
            ]
        )
    yield straight(lines)
    if study.differences:
        yield _difference_table(study.differences, "against the control")


def _reading(results: Results) -> Iterator[str]:
    """What follows from the numbers, in words."""
    for protocol, (table, _) in results.tables.items():
        means = {row.labels[0]: row.values for row in table.rows}
        blurred = table.rows[0].labels[0]
        gains = [f"{name} {_gain(means, name, blurred):+.2f} dB" for name in (results.soft, results.sharp)]
        yield f"- {TITLES[protocol]}: restoring gains {' and '.join(gains)} over the blurred pictures."
    compared = [*results.weights_of_q[1:], results.sharp] if results.weights_of_q else []
    for name in compared:
        words = []
        for metric in QUALITIES:
            found = {
                TITLES[protocol]: results.differences(protocol, name, CONTROL).get(metric)
                for protocol in results.tables
            }
            verdicts = {title: _verdict(one, metric) for title, one in found.items()}
            # A difference may be certain and still nothing to speak of.
            sizes = [f"{one.mean:+.{DIGITS[metric]}f}" for one in found.values() if one]
            words.append(f"{HEADERS[metric].split()[0]} {_joined(verdicts)} ({', '.join(sizes) or 'n/a'})")
        yield f"- {name} against the control: {'; '.join(words)}."


def _gain(means: Mapping[str, Mapping[str, float | None]], name: str, blurred: str) -> float:
    after, before = means[name]["psnr"], means[blurred]["psnr"]
    assert after is not None and before is not None  # PSNR is always measured
    return after - before


def _verdict(difference: Difference | None, metric: str) -> str:
    if difference is None:
        return "not measured"
    if not difference.certain:
        return "no certain change"
    if metric == "q":
        return "higher" if difference.mean > 0 else "lower"
    return "better" if (difference.mean > 0) == (metric != "lpips") else "worse"


def _joined(verdicts: Mapping[str, str]) -> str:
    if len(set(verdicts.values())) == 1:
        return f"{next(iter(verdicts.values()))} on both"
    return ", ".join(f"{verdict} on {title}" for title, verdict in verdicts.items())

"""Tables of the experiments with repair, what was asked beside what was measured."""

from __future__ import annotations

from typing import Any

from mae_measures import PLAUSIBILITY

_PERCENT = {"boundary_to_area", "cristae_ratio", "background_ratio"}


def show_phantom(found: dict[str, Any], asked: dict[str, Any]) -> str:
    """Lay out piece a."""
    lines = ["Table 1: Dice of masked pixels (pooled) by masking ratio"]
    lines += _table_1(found["table_1"], asked["table_1"])
    seen = " ".join(f"{r}: {v['micro'][0]:.3f}" for r, v in found["table_1_seen"]["mae"].items())
    lines += [f"  on scenes of seen ranges: {seen}", "", "Entropy where stain was spoiled"]
    for mode, rows in found["entropy_rise"].items():
        for variant, row in rows.items():
            for where, part in row.items():
                if where != "mitochondria":
                    lines.append(
                        f"  {mode:5}{variant:6}{where:28}{_cell(part['before'])} -> "
                        f"{_cell(part['after'])}  rise {_cell(part['rise'], 100)} %"
                    )
        lines.append(f"  (asked {100 * asked['entropy_rise']:.0f} %)")
    lines += ["", "Thresholds, on validation scenes", *_sweep(found["validation"])]
    for kind, scores in found["scores"].items():
        lines += ["", f"Scenes: {kind}", *_table_2(scores["table_2"], asked["table_2"])]
        lines += _scores(scores)
    return "\n".join(lines)


def show_em(found: dict[str, Any]) -> str:
    """Lay out piece b."""
    tried = found["validation_slices"]
    lines = [f"em_vnc: test slices {found['test_slices']}, settings chosen on {tried}"]
    lines += [
        "Table 1",
        *_table_1(found["table_1"], {}),
        "Thresholds",
        *_sweep(found["validation"]),
    ]
    return "\n".join([*lines, *_scores(found["scores"])])


def _table_1(found: dict[str, Any], asked: dict[str, float]) -> list[str]:
    others = [name for name in ("neighbours", "cnn-ae") if name in found]
    titles = "".join(f"{name:>12}" for name in others)
    lines = [f"  {'ratio':8}{'asked':>7}{'measured':>22}{titles}{'mean fg':>9}"]
    for ratio, row in found["mae"].items():
        beside = "".join(f"{found[name][ratio]['micro'][0]:12.3f}" for name in others)
        aim = f"{asked[ratio]:.2f}" if ratio in asked else "-"
        lines.append(
            f"  {ratio:8}{aim:>7}{_cell(row['micro']):>22}{beside}{row['mean_foreground'][0]:9.3f}"
        )
    return lines


def _sweep(found: dict[str, Any]) -> list[str]:
    lines = [f"  initial: mean foreground Dice {_cell(found['initial']['mean_foreground'])}"]
    for threshold, row in found["threshold"].items():
        lines.append(
            f"  {threshold}: mean foreground {_cell(row['mean_foreground'])}, uncertain "
            f"{100 * row['uncertain']:.2f} %, inside {_cell(row['inside_before'])} -> "
            f"{_cell(row['inside_after'])}, {row['windows_left']} windows left"
        )
    for key, row in found["joined"].items():
        lines.append(
            f"  joined {key}: mean foreground {_cell(row['mean_foreground'])}, inside -> "
            f"{_cell(row['inside_after'])}"
        )
    return [*lines, f"  chosen: {found['chosen']}"]


def _table_2(rows: dict[str, Any], asked: dict[str, list[float]]) -> list[str]:
    lines = [f"{'Table 2':17}" + "".join(f"{name:>25}" for name in PLAUSIBILITY) + "   objects"]
    for title, row in rows.items():
        cells = "".join(f"{_cell(row[n], 100 if n in _PERCENT else 1):>25}" for n in PLAUSIBILITY)
        lines.append(f"  {title:15}{cells}{row['objects'][0]:6}")
        if title in asked:
            scaled = [v * (100 if n in _PERCENT else 1)
                      for n, v in zip(PLAUSIBILITY, asked[title], strict=True)]  # fmt: skip
            lines.append(f"  {'(source)':15}" + "".join(f"{v:25.2f}" for v in scaled))
    return lines


def _scores(scores: dict[str, Any]) -> list[str]:
    lines = ["Dice of whole maps"]
    for title, row in scores["dice"].items():
        lines.append(f"  {title:15}" + ", ".join(f"{n} {_cell(v)}" for n, v in row.items()))
    for title in (key for key in scores if key.startswith("inside, ")):
        part = scores[title]
        lines.append(f"{title}: {100 * part['share']:.2f} % of the pixels")
        lines += [
            f"  {name:16}{_cell(before)} -> {_cell(part['after'][name])}"
            for name, before in part["before"].items()
        ]
        harm = part["harm"]
        shares = [
            f"{_cell(harm[f'{kind}_harmed'], 100)} % harmed, "
            f"{_cell(harm[f'{kind}_helped'], 100)} % helped"
            for kind in ("groups", "patches")
        ]
        lines.append(
            f"  gain {_cell(part['gain'])}; of {harm['groups'][0]} groups of patches {shares[0]}; "
            f"of {harm['patches'][0]} patches {shares[1]}"
        )
    found = scores["detector"]
    return [*lines, (
        f"entropy finds wrong pixels: AUPRC {_cell(found['auprc'])}, base rate "
        f"{_cell(found['base_rate'])}, {_cell(found['times_base_rate'])} times (asked 3)"
    )]  # fmt: skip


def _cell(values: list[float | None], scale: float = 1) -> str:
    """Value and interval; a dash where there is none."""
    value, low, high = values
    if value is None:
        return "-"
    digits = 3 if scale == 1 else 2 if abs(value * scale) < 10 else 1
    text = f"{value * scale:.{digits}f}"
    if low is None or high is None:
        return text
    return f"{text} [{low * scale:.{digits}f}, {high * scale:.{digits}f}]"

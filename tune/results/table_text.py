"""A paper's table as Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence

from magtkd.errors import and_more
from tune.results.table import Cell, Comparison, PaperTable
from tune.stats import NUM_DRAWS

__all__ = ["TABLE_FORMATS", "footnotes"]

NONE = "–"
STAGES = ("data", "teacher", "audio", "video", "fusion")


def _header(metric: str) -> str:
    if metric.startswith("f1/"):
        return f"F1 of {metric.removeprefix('f1/')}"
    return metric.replace("_f1", " F1").capitalize().replace("f1", "F1")


def _name(table: PaperTable, row: str) -> str:
    is_published = table.spec.row(row).published is not None
    return f"{row} (published)" if is_published else row


def _compared(table: PaperTable) -> Iterator[tuple[Cell, Comparison]]:
    for cell in table.cells.values():
        if cell.comparison is not None:
            yield cell, cell.comparison


def footnotes(table: PaperTable) -> list[str]:
    """What stands below a table: how it was computed, what was revealed, and sources."""
    spec = table.spec
    seeds = and_more(map(str, spec.seeds), 10)
    lines = [
        f"Test, in percent: mean ± standard deviation over {len(spec.seeds)} seeds ({seeds}); the "
        "best is bold, the second underlined."
    ]
    if table.num_comparisons:
        lines.append(
            f"† differs from {spec.reference}: paired permutation test, two-sided, predictions "
            f"swapped by conversation with all seeds ({NUM_DRAWS:,} draws), p < 0.05 after Holm's "
            f"correction for {table.num_comparisons} comparisons."
        )
    lines += [f"{row.name}: published, {row.source}." for row in spec.rows if row.source]
    return [*lines, *table.notes]


# --- Markdown ---------------------------------------------------------------------------------


def markdown(table: PaperTable) -> str:
    """The table, its footnotes and the p-values as Markdown."""
    is_one = len(table.columns) == 1
    headers = [
        _header(metric) if is_one else f"{data}: {_header(metric)}"
        for data, metrics in table.columns.items()
        for metric in metrics
    ]
    rows = [
        [_escape_markdown(_name(table, row.name)), *_row(table, row.name, _markdown_cell)]
        for row in table.spec.rows
    ]
    title = next(iter(table.columns)) if is_one else ""
    lines = [*_markdown_table([title, *headers], rows), ""]
    lines += [f"{_escape_markdown(line)}  " for line in footnotes(table)]
    if compared := list(_compared(table)):
        lines += ["", f"Against {_escape_markdown(table.spec.reference)}:", ""]
        headers = ["row", "data", "metric", "difference", "95 % interval", "p", "p, corrected"]
        lines += _markdown_table(
            headers,
            [[_escape_markdown(one) for one in _p_row(*pair)] for pair in compared],
            left=3,
        )
    return "\n".join(lines) + "\n"


def _row(table: PaperTable, row: str, show: Callable[[Cell], str]) -> list[str]:
    places = [(row, data, metric) for data, metrics in table.columns.items() for metric in metrics]
    return [show(table.cells[place]) if place in table.cells else NONE for place in places]


def _figure(cell: Cell, plus_minus: str) -> str:
    if cell.deviation is None:
        return cell.shown
    return f"{cell.shown} {plus_minus} {100 * cell.deviation:.2f}"


def _is_marked(cell: Cell) -> bool:
    return cell.comparison is not None and cell.comparison.is_significant


def _markdown_cell(cell: Cell) -> str:
    text = _figure(cell, "±")
    if cell.is_best:
        text = f"**{text}**"
    elif cell.is_second:
        text = f"<u>{text}</u>"
    return f"{text}†" if _is_marked(cell) else text


def _p_row(cell: Cell, one: Comparison) -> list[str]:
    points = f"{100 * one.low:.2f} to {100 * one.high:.2f}"
    difference = f"{100 * one.difference:+.2f}"
    p_values = [f"{p:.4f}" for p in (one.p, one.p_corrected)]
    return [cell.row, cell.data, _header(cell.metric), difference, points, *p_values]


def _markdown_table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1
) -> list[str]:
    lines = [headers, ["---" if place < left else "---:" for place in range(len(headers))], *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _escape_markdown(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


# --- LaTeX ------------------------------------------------------------------------------------

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "±": r"$\pm$",
    "†": r"$^{\dagger}$",
    "–": "--",
}


def _escape_latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))


def latex(table: PaperTable) -> str:
    r"""The table and one of the p-values as LaTeX, for `\usepackage{booktabs}`."""
    groups = list(table.columns.items())
    lines = [
        f"% Table {table.spec.name}, by magtkd table; needs \\usepackage{{booktabs}}.",
        *_comments(table),
        r"\begin{table}",
        r"\centering\small\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{_escape_latex(table.spec.name)}}}",
        rf"\label{{tab:{table.spec.name}}}",
        rf"\begin{{tabular}}{{l{''.join('c' * len(metrics) for _, metrics in groups)}}}",
        r"\toprule",
    ]
    heads = [
        rf"\multicolumn{{{len(metrics)}}}{{c}}{{{_escape_latex(data)}}}" for data, metrics in groups
    ]
    lines.append(f" & {' & '.join(heads)} \\\\")
    rules, first = [], 2
    for _, metrics in groups:
        rules.append(rf"\cmidrule(lr){{{first}-{first + len(metrics) - 1}}}")
        first += len(metrics)
    lines.append("".join(rules))
    names = [_escape_latex(_header(metric)) for _, metrics in groups for metric in metrics]
    lines += [f" & {' & '.join(names)} \\\\", r"\midrule"]
    for row in table.spec.rows:
        cells = [
            _escape_latex(one) if one == NONE else one for one in _row(table, row.name, _latex_cell)
        ]
        lines.append(f"{_escape_latex(_name(table, row.name))} & {' & '.join(cells)} \\\\")
    notes = " ".join(_escape_latex(line) for line in footnotes(table))
    lines += [
        r"\bottomrule",
        r"\end{tabular}",
        rf"\par\medskip\parbox{{\linewidth}}{{\footnotesize {notes}}}",
        r"\end{table}",
    ]
    if compared := list(_compared(table)):
        lines += ["", *_latex_appendix(table, compared)]
    return "\n".join(lines) + "\n"


def _comments(table: PaperTable) -> Iterator[str]:
    """The artifacts of each row and seed."""
    seen = set()
    for cell in table.cells.values():
        if (cell.row, cell.data) in seen:
            continue
        seen.add((cell.row, cell.data))
        for seed, keys in zip(cell.seeds, cell.keys, strict=True):
            shown = " ".join(f"{stage}={key}" for stage, key in _in_order(keys))
            yield f"% {' '.join(cell.row.split())}, {cell.data}, seed {seed}: {shown}"


def _in_order(keys: dict[str, str]) -> list[tuple[str, str]]:
    return [(stage, keys[stage]) for stage in STAGES if stage in keys]


def _latex_cell(cell: Cell) -> str:
    text = _figure(cell, r"$\pm$")
    if cell.is_best:
        text = rf"\textbf{{{text}}}"
    elif cell.is_second:
        text = rf"\underline{{{text}}}"
    return rf"{text}$^{{\dagger}}$" if _is_marked(cell) else text


def _latex_appendix(
    table: PaperTable, compared: Sequence[tuple[Cell, Comparison]]
) -> Iterator[str]:
    yield r"\begin{table}"
    yield r"\centering\footnotesize\setlength{\tabcolsep}{3pt}"
    yield rf"\caption{{Differences to {_escape_latex(table.spec.reference)}, in points.}}"
    yield r"\begin{tabular}{@{}lllrrrr@{}}"
    yield r"\toprule"
    yield r"Row & Data & Metric & Difference & 95\,\% interval & $p$ & $p_{\mathrm{Holm}}$ \\"
    yield r"\midrule"
    for cell, one in compared:
        texts = [_escape_latex(text) for text in _p_row(cell, one)]
        names, figures = texts[:3], texts[3:]
        signed = [text.replace("-", "$-$").replace("+", "$+$") for text in figures]
        yield f"{' & '.join([*names, *signed])} \\\\"
    yield r"\bottomrule"
    yield r"\end{tabular}"
    yield r"\end{table}"


# --- for programs -----------------------------------------------------------------------------


def csv_text(table: PaperTable) -> str:
    """A line for each cell; seeds, values and keys are lists with spaces between."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    figures = ("mean", "deviation", "low", "high")
    tests = ("difference", "low", "high", "p", "p_corrected", "is_significant")
    writer.writerow(
        [
            *("row", "data", "metric"),
            *figures,
            *("is_best", "is_second"),
            *("difference", "difference_low", "difference_high", "p", "p_corrected"),
            *("is_significant", "source", "seeds", "values"),
            *(f"keys.{stage}" for stage in STAGES),
        ]
    )
    for cell in table.cells.values():
        compared = [getattr(cell.comparison, name, None) for name in tests]
        writer.writerow(
            [
                *(cell.row, cell.data, cell.metric),
                *(getattr(cell, name) for name in figures),
                *(cell.is_best, cell.is_second),
                *compared,
                table.spec.row(cell.row).source,
                " ".join(map(str, cell.seeds)),
                " ".join(map(str, cell.values)),
                *(" ".join(keys.get(stage, "") for keys in cell.keys).strip() for stage in STAGES),
            ]
        )
    return stream.getvalue()


def json_text(table: PaperTable) -> str:
    """The whole table as JSON."""
    return json.dumps(table.to_json(), indent=2, ensure_ascii=False) + "\n"


TABLE_FORMATS: dict[str, Callable[[PaperTable], str]] = {
    "md": markdown,
    "tex": latex,
    "csv": csv_text,
    "json": json_text,
}
"""The text of a table, by the suffix of its file."""
